//! What istiod makes of the manifests and istio-agent hands to Envoy, after
//! `pilot/pkg/model/extensions.go`, `pilot/pkg/networking/core/envoyfilter` and
//! `pkg/wasm/convert.go` of Istio 1.30. In the place of ADS there are files. What these manifests
//! do not use is not known here.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use weir_lab::scratch::Scratch;
use weir_lab::upstream::Upstream;

use crate::manifest::{Services, all, items, kind, name, namespace, text};
use crate::proxy::{self, Setting, cluster, write_resource};

const HCM: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const HTTP_WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";

/// A gateway of Istio's, before it is started.
pub struct Gateway {
    bootstrap: Value,
    files: Scratch,
    wasm: PathBuf,
}

impl Gateway {
    pub fn new(
        objects: &[Value],
        services: &Services,
        upstream: &Upstream,
        wasm: &Path,
    ) -> Gateway {
        let mut gateway = Gateway {
            bootstrap: base(upstream),
            files: Scratch::try_new("istio").unwrap(),
            wasm: wasm.to_owned(),
        };
        for service in all(objects, "Service") {
            gateway.add_service(service, services);
        }
        let kinds = ["TrafficExtension", "WasmPlugin"];
        for extension in objects
            .iter()
            .filter(|object| kinds.contains(&kind(object)))
        {
            gateway.add_extension(extension);
        }
        for filter in all(objects, "EnvoyFilter") {
            for patch in items(&filter["spec"]["configPatches"]) {
                gateway.patch(patch);
            }
        }
        services.resolve_all(&mut gateway.bootstrap);
        gateway
    }

    pub fn start(self, environment: Vec<(String, String)>) -> proxy::Proxy {
        let setting = Setting {
            bootstrap: self.bootstrap.to_string(),
            overlay: None,
            environment,
        };
        setting.start(self.files)
    }

    /// Where the extension's configuration is, which a running gateway follows.
    pub fn extension_file(&self) -> PathBuf {
        self.files.file("extension.json")
    }

    /// Istio makes a cluster of each port of each Service.
    fn add_service(&mut self, service: &Value, services: &Services) {
        let host = format!("{}.{}.svc.cluster.local", name(service), namespace(service));
        for port in items(&service["spec"]["ports"]) {
            let number = port["port"]
                .as_u64()
                .and_then(|port| u16::try_from(port).ok())
                .unwrap();
            if let Some(address) = services.find(&host, number) {
                let cluster = cluster(&format!("outbound|{number}||{host}"), address);
                push(&mut self.bootstrap["static_resources"]["clusters"], cluster);
            }
        }
    }

    fn add_extension(&mut self, extension: &Value) {
        let (name, resource) = resource(extension, &self.wasm);
        write_resource(&self.extension_file(), &resource);
        let types = [
            HTTP_WASM,
            "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
        ];
        let discovery = json!({
            "config_source": { "ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3" },
            "type_urls": types,
        });
        let mut filter = json!({ "name": name, "config_discovery": discovery });
        from_file(&mut filter, &self.extension_file());
        let filters = self.hcm()["http_filters"].as_array_mut().unwrap();
        filters.insert(filters.len() - 1, filter);
    }

    fn patch(&mut self, patch: &Value) {
        assert_eq!(patch["match"]["context"], "GATEWAY");
        let mut value = patch["patch"]["value"].clone();
        let operation = text(&patch["patch"]["operation"]);
        match (text(&patch["applyTo"]), operation) {
            ("EXTENSION_CONFIG", "ADD") => {
                pulled(&mut value["typed_config"]["config"], &self.wasm);
                let resource =
                    typed_extension_config(text(&value["name"]), value["typed_config"].clone());
                write_resource(&self.files.file("bridge.json"), &resource);
            }
            ("LISTENER", "ADD") => {
                for chain in value["filter_chains"].as_array_mut().unwrap() {
                    for filter in chain["filters"].as_array_mut().unwrap() {
                        from_file(filter, &self.files.file("bridge.json"));
                    }
                }
                push(&mut self.bootstrap["static_resources"]["listeners"], value);
            }
            ("CLUSTER", "ADD") => push(&mut self.bootstrap["static_resources"]["clusters"], value),
            ("HTTP_FILTER", "INSERT_FIRST") => {
                self.hcm()["http_filters"]
                    .as_array_mut()
                    .unwrap()
                    .insert(0, value);
            }
            ("ROUTE_CONFIGURATION", "MERGE") => {
                for (field, more) in value.as_object().unwrap() {
                    let route = &mut self.hcm()["route_config"];
                    let mut merged: Vec<Value> = items(&route[field]).cloned().collect();
                    merged.extend(items(more).cloned());
                    route[field] = json!(merged);
                }
            }
            other => panic!("this is not known of Istio here: {other:?}"),
        }
    }

    fn hcm(&mut self) -> &mut Value {
        &mut self.bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    }
}

/// What ECDS tells of an extension: its name and the configuration.
pub fn resource(extension: &Value, wasm: &Path) -> (String, Value) {
    let is_plugin = kind(extension) == "WasmPlugin";
    let spec = &extension["spec"];
    assert_eq!(
        spec["match"],
        json!([{ "mode": "CLIENT" }]),
        "a gateway is a client"
    );
    let of = if is_plugin { spec } else { &spec["wasm"] };
    assert_eq!(of["type"], "HTTP");
    let full = format!("{}.{}", namespace(extension), name(extension));
    let name = match is_plugin {
        true => format!("extensions.istio.io/wasmplugin/{full}"),
        false => format!("extensions.istio.io/trafficextension/{full}"),
    };
    let policy = match text(&of["failStrategy"]) {
        "FAIL_CLOSE" => "FAIL_CLOSED",
        other => other,
    };
    let remote = json!({
        "http_uri": { "uri": of["url"], "timeout": "30s", "cluster": "_" },
        "sha256": of["sha256"].as_str().unwrap_or("nil"),
    });
    let mut config = json!({
        "name": full,
        "failure_policy": policy,
        "vm_config": {
            "runtime": "envoy.wasm.runtime.v8",
            "code": { "remote": remote },
            "environment_variables": { "key_values": { "ISTIO_META_WASM_PLUGIN_RESOURCE_VERSION": "1" } },
        },
        "configuration": {
            "@type": "type.googleapis.com/google.protobuf.StringValue",
            "value": as_struct(&of["pluginConfig"]).to_string(),
        },
    });
    pulled(&mut config, wasm);
    let resource = typed_extension_config(&name, json!({ "@type": HTTP_WASM, "config": config }));
    (name, resource)
}

fn typed_extension_config(name: &str, config: Value) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        "name": name,
        "typed_config": config,
    })
}

/// The agent pulls the image, names the file, and keeps its own variables to itself.
fn pulled(config: &mut Value, wasm: &Path) {
    let vm = &mut config["vm_config"];
    let remote = &vm["code"]["remote"];
    assert!(
        text(&remote["http_uri"]["uri"]).starts_with("oci://"),
        "{remote}"
    );
    let digest = text(&remote["sha256"]);
    assert!(digest == "nil" || digest.len() == 64, "{digest}");
    vm["code"] = json!({ "local": { "filename": wasm } });
    vm.as_object_mut().unwrap().remove("environment_variables");
}

/// In a Struct each number is a double; protojson writes whole ones without a fraction.
fn as_struct(value: &Value) -> Value {
    match value {
        Value::Number(number) => match number.as_f64().unwrap() {
            whole if whole.fract() == 0.0 && whole.abs() < 1e15 => json!(whole as i64),
            other => json!(other),
        },
        Value::Array(items) => items.iter().map(as_struct).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), as_struct(value)))
            .collect(),
        other => other.clone(),
    }
}

/// A file stands for ADS.
fn from_file(filter: &mut Value, path: &Path) {
    let source = &mut filter["config_discovery"]["config_source"];
    if source.is_null() {
        filter.as_object_mut().unwrap().remove("config_discovery");
        return;
    }
    assert!(source["ads"].is_object(), "Istio's extensions come by ADS");
    *source = json!({
        "path_config_source": { "path": path },
        "resource_api_version": "V3",
        "initial_fetch_timeout": "0s",
    });
}

fn push(list: &mut Value, item: Value) {
    list.as_array_mut().unwrap().push(item);
}

/// A gateway of Istio's with one route, and nothing of Weir's. Its bootstrap has internal
/// listeners, takes no tags out of Weir's statistics, and keeps all that begin with "wasm".
fn base(upstream: &Upstream) -> Value {
    let hcm = json!({
        "@type": HCM,
        "stat_prefix": "outbound_0.0.0.0_8080",
        "use_remote_address": true,
        "normalize_path": true,
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
        }],
        "route_config": {
            "name": "http.8080",
            "virtual_hosts": [{
                "name": "*:8080",
                "domains": ["*"],
                "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "upstream" } }],
            }],
        },
    });
    json!({
        "node": { "id": "router~127.0.0.1~gateway.istio-ingress~istio-ingress.svc.cluster.local", "cluster": "gateway" },
        "admin": proxy::admin(),
        "stats_config": { "use_all_default_tags": false },
        "bootstrap_extensions": [{
            "name": "envoy.bootstrap.internal_listener",
            "typed_config": {
                "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
                "type_url": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
                "value": { "buffer_size_kb": 64 },
            },
        }],
        "static_resources": {
            "listeners": [{
                "name": "gateway",
                "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } },
                "filter_chains": [{ "filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": hcm,
                }] }],
            }],
            "clusters": [proxy::upstream(upstream)],
        },
    })
}
