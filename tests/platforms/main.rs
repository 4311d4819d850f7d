//! `platforms/`: what a person installs, held to the schemas of its APIs, and run. Each manifest
//! becomes what its controller would send, and that runs in a real Envoy, with the shipped wasm and
//! a real Redis.
//!
//! - [`istio`] and [`envoy_gateway`] stand for the controllers, [`sidecar`] for the pod of
//!   weir-store;
//! - [`proxy`] is the Envoy, [`helm`] a real Helm, [`schema`] judges, [`scene`] puts them together;
//! - the cases are in [`clusters`], [`chart`], [`plain`].

mod chart;
mod clusters;
mod envoy_gateway;
mod helm;
mod istio;
mod manifest;
mod plain;
mod proxy;
mod scene;
mod schema;
mod sidecar;
mod yaml;
