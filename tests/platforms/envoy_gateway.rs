//! What Envoy Gateway makes of the manifests, after `internal/xds/translator` and
//! `internal/xds/bootstrap` of 1.9: a filter that is off until a route turns it on, code that Envoy
//! fetches, and a bootstrap that Envoy merges as the controller does. What these manifests do not
//! use is not known here.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::thread;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use weir_lab::scratch::Scratch;
use weir_lab::upstream::Upstream;

use crate::manifest::{Services, all, items, name, namespace, one, text};
use crate::proxy::{self, Proxy, Setting, cluster};
use crate::sidecar::{Secrets, environment};
use crate::yaml;

pub fn start(
    objects: &[Value],
    services: &Services,
    secrets: &Secrets,
    upstream: &Upstream,
    wasm: &Path,
) -> Proxy {
    let module = fs::read(wasm).unwrap();
    let digest: String = Sha256::digest(&module)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let code = serve(module);

    let spec = &one(objects, "EnvoyProxy")["spec"];
    assert_eq!(spec["bootstrap"]["type"], "Merge");
    let mut overlay = yaml::document(text(&spec["bootstrap"]["value"]));
    services.resolve_all(&mut overlay);
    mounted(&mut overlay, spec, wasm);
    let container = &spec["provider"]["kubernetes"]["envoyDeployment"]["container"];

    let setting = Setting {
        bootstrap: bootstrap(objects, upstream, code, &digest).to_string(),
        overlay: Some(overlay.to_string()),
        environment: environment(container, secrets),
    };
    setting.start(Scratch::try_new("envoy-gateway").unwrap())
}

fn bootstrap(objects: &[Value], upstream: &Upstream, code: SocketAddr, digest: &str) -> Value {
    let policy = one(objects, "EnvoyExtensionPolicy");
    let names: Vec<String> = items(&policy["spec"]["wasm"])
        .enumerate()
        .map(|(index, _)| {
            format!(
                "envoyextensionpolicy/{}/{}/wasm/{index}",
                namespace(policy),
                name(policy)
            )
        })
        .collect();
    let mut filters: Vec<Value> = items(&policy["spec"]["wasm"])
        .zip(&names)
        .map(|(wasm, name)| filter(wasm, name, digest))
        .collect();
    let on = |name: &String| {
        let filter = json!({ "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {} });
        (format!("envoy.filters.http.wasm/{name}"), filter)
    };
    let per_route: serde_json::Map<String, Value> = names.iter().map(on).collect();
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
            "suppress_envoy_headers": true,
        },
    }));
    let mut hcm = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http-10080",
        "use_remote_address": true,
        "normalize_path": true,
        "merge_slashes": true,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT",
        "common_http_protocol_options": { "headers_with_underscores_action": "REJECT_REQUEST" },
        "server_header_transformation": "PASS_THROUGH",
        "http_filters": filters,
        "route_config": { "virtual_hosts": [{
            "name": "default/eg/http/*",
            "domains": ["*"],
            "routes": [{
                "match": { "prefix": "/" },
                "route": { "cluster": "upstream" },
                "typed_per_filter_config": per_route,
            }],
        }] },
    });
    for policy in all(objects, "ClientTrafficPolicy") {
        let headers =
            items(&policy["spec"]["headers"]["earlyRequestHeaders"]["set"]).map(|header| {
                json!({ "append": {
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                "header": { "key": header["name"], "value": header["value"] },
            } })
            });
        hcm["early_header_mutation_extensions"] = json!([{
            "name": "envoy.http.early_header_mutation.header_mutation",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
                "mutations": headers.collect::<Vec<Value>>(),
            },
        }]);
    }
    json!({
        "node": { "id": "eg", "cluster": "default/eg" },
        "admin": proxy::admin(),
        "stats_config": { "use_all_default_tags": true },
        "static_resources": {
            "listeners": [{
                "name": "gateway",
                "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } },
                "default_filter_chain": { "filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": hcm,
                }] },
            }],
            "clusters": [proxy::upstream(upstream), cluster("wasm_cluster", code)],
        },
    })
}

fn filter(wasm: &Value, id: &str, digest: &str) -> Value {
    assert_eq!(wasm["code"]["type"], "Image");
    let uri = format!("http://envoy-gateway:18002/{digest}.wasm");
    let remote = json!({
        "http_uri": { "uri": uri, "cluster": "wasm_cluster", "timeout": "10s" },
        "sha256": digest,
        "retry_policy": {
            "num_retries": 10,
            "retry_back_off": { "base_interval": "1s", "max_interval": "30s" },
        },
    });
    json!({
        "name": format!("envoy.filters.http.wasm/{id}"),
        "disabled": true,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": wasm["name"],
                "fail_open": wasm["failOpen"].as_bool().unwrap_or_default(),
                "vm_config": {
                    "vm_id": id,
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": { "remote": remote },
                },
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": wasm["config"].to_string(),
                },
            },
        },
    })
}

/// The image's file, where the pod's volume has it.
fn mounted(bootstrap: &mut Value, spec: &Value, wasm: &Path) {
    let deployment = &spec["provider"]["kubernetes"]["envoyDeployment"];
    let mount = &deployment["container"]["volumeMounts"][0];
    let Some(folder) = mount["mountPath"].as_str() else {
        return;
    };
    assert_eq!(mount["name"], deployment["pod"]["volumes"][0]["name"]);
    let text = bootstrap.to_string();
    let there = text.replace(
        &format!("{folder}/plugin.wasm"),
        &wasm.display().to_string(),
    );
    assert_ne!(there, text, "nothing of the image is used");
    *bootstrap = serde_json::from_str(&there).unwrap();
}

/// The controller's own server, which Envoy fetches the code from.
fn serve(module: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head: Vec<u8> = Vec::new();
            let mut piece = [0; 1024];
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut piece) {
                    Ok(bytes @ 1..) => head.extend(&piece[..bytes]),
                    _ => break,
                }
            }
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                module.len()
            );
            // A client that has gone fetches it again.
            let _ = stream
                .write_all(answer.as_bytes())
                .and_then(|()| stream.write_all(&module));
        }
    });
    address
}
