//! `weirctl install`: what the command line says stands in what is printed.

use std::process::{Command, Output};

fn weirctl(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weirctl"));
    command.arg("install").args(arguments);
    command
        .env_remove("WEIR_NAMESPACE")
        .env_remove("WEIR_STORE_SECRET")
        .output()
        .unwrap()
}

fn printed(arguments: &[&str]) -> String {
    let output = weirctl(arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_name_of_the_command_line_is_in_what_is_printed() {
    let digest = "ab".repeat(32);
    let filter_digest = format!("sha256:{digest}");
    let names = [
        "--redis",
        "rediss://weir@redis.example.com:6380",
        "--redis-cluster",
        "--redis-password",
        "the-password",
        "--redis-ca",
        "the-ca",
        "--store-namespace",
        "limits",
        "--store-secret",
        "sixteen-characters",
        "--registry",
        "registry.example.com/weir",
        "--tag",
        "9.8.7",
        "--filter-digest",
        &filter_digest,
        "--trust",
        "10.0.0.0/8,fd00::/8",
        "--user-claim",
        "payload,sub",
        "--namespace",
        "staging",
        "--gateways",
        "7",
        "--workers",
        "5",
        "--timeout-ms",
        "30",
        "--gateway-namespace",
        "edge-system",
    ];
    let common = [
        "redis.example.com:6380",
        "\"--cluster\"",
        "the-password",
        "the-ca",
        "weir-store.limits.svc.cluster.local",
        "sixteen-characters",
        "registry.example.com/weir/filter:9.8.7",
        "registry.example.com/weir/sidecar:9.8.7",
        digest.as_str(),
        r#"["10.0.0.0/8","fd00::/8"]"#,
        r#""user":{"claim":["payload","sub"]}"#,
        "namespace: \"staging\"",
        "gateways: 7",
        "workers: 5",
        "timeout_ms: 30",
        "namespace: \"edge-system\"",
    ];
    for (platform, own, words) in [
        (
            "istio",
            &["--gateway", "edge"][..],
            &["kind: TrafficExtension", "name: \"edge\""][..],
        ),
        (
            "istio",
            &["--selector", "istio=edge", "--api", "wasm-plugin"],
            &["kind: WasmPlugin", r#"{"istio":"edge"}"#],
        ),
        (
            "envoy-gateway",
            &["--gateway", "edge"],
            &["kind: EnvoyExtensionPolicy", "name: \"edge\""],
        ),
    ] {
        let printed = printed(&[&[platform], own, &names].concat());
        for word in common.iter().chain(words) {
            assert!(printed.contains(word), "{platform}: {word}\n{printed}");
        }
        assert!(!printed.contains("${"), "{printed}");
    }
}

#[test]
fn an_envoy_of_ones_own_gets_one_file() {
    let printed = printed(&[
        "envoy",
        "--redis",
        "[fd00::7]:6380",
        "--redis-cluster",
        "--redis-login",
        "--listen",
        "127.0.0.1:8000",
        "--upstream",
        "shop:80",
        "--wasm",
        "/opt/weir.wasm",
        "--trust",
        "10.0.0.0/8",
    ]);
    for word in [
        "address: \"fd00::7\", port_value: 6380",
        "envoy.clusters.redis",
        "environment_variable: REDIS_PASSWORD",
        "address: \"127.0.0.1\", port_value: 8000",
        "address: \"shop\", port_value: 80",
        "filename: \"/opt/weir.wasm\"",
        "\"trust\": [\"10.0.0.0/8\"]",
    ] {
        assert!(printed.contains(word), "{word}\n{printed}");
    }
    let keys = printed
        .lines()
        .filter(|line| line.starts_with(|first: char| first.is_ascii_lowercase()));
    let keys: Vec<&str> = keys.collect();
    assert_eq!(
        keys,
        [
            "admin:",
            "stats_config:",
            "bootstrap_extensions:",
            "static_resources:"
        ]
    );
    assert!(!printed.contains("${"), "{printed}");
}

#[test]
fn a_secret_that_nobody_said_is_another_each_time() {
    let secret = || {
        let printed = printed(&["istio", "--throwaway-redis"]);
        let line = printed
            .lines()
            .find(|line| line.trim_start().starts_with("secret: \""))
            .unwrap();
        line.to_owned()
    };
    assert_ne!(secret(), secret());
}

#[test]
fn what_cannot_be_is_refused_with_its_reason() {
    for (arguments, code, told) in [
        (&["istio"][..], 2, "--redis <URL>"),
        (
            &["istio", "--throwaway-redis", "--gateway", "A b"],
            2,
            "is no name of a Kubernetes object",
        ),
        (
            &["istio", "--throwaway-redis", "--redis", "a:1"],
            2,
            "cannot be used with",
        ),
        (
            &["istio", "--throwaway-redis", "--store-secret", "short"],
            4,
            "16 characters or more",
        ),
        (
            &["istio", "--throwaway-redis", "--filter-digest", "1.2"],
            2,
            "64 hexadecimal digits",
        ),
        (
            &["istio", "--redis", "rediss://a:1", "--store", "bridge"],
            4,
            "take --store sidecar",
        ),
        (&["envoy", "--redis", "redis"], 2, "write HOST:PORT"),
        (
            &["envoy", "--store", "sidecar", "--redis-login"],
            4,
            "Redis asks the sidecar",
        ),
    ] {
        let output = weirctl(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?} {said}");
        assert!(said.contains(told), "{arguments:?} {said}");
    }
}
