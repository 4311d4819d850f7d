//! Images as strangers meet them: from a registry that is started here, and by the engine of this
//! machine, where there is one.
//!
//! - [`served`] is a registry of our own, which can be told to ask who one is;
//! - [`agent`] fetches as Istio's agent and Envoy Gateway do;
//! - [`fetching`] pushes and fetches; [`reproducing`] builds twice;
//! - [`running`] loads images into Docker and runs them: `make test-images`.

mod agent;
mod fetching;
mod reproducing;
mod running;
mod served;
