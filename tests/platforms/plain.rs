//! The one file for an Envoy of one's own.

use weir_cli::manifests::{Envoy, Login, Store, Topology};
use weir_lab::artifact;
use weir_lab::redis::Redis;
use weir_lab::scratch::Scratch;
use weir_lab::sidecar::Sidecar;
use weir_lab::upstream::Upstream;

use crate::proxy::Setting;
use crate::scene::{five_logins, limits};

fn answers(store: Store, login: Login) {
    const PASSWORD: &str = "open sesame";
    let redis = match login {
        Login::None => Redis::start().unwrap(),
        Login::FromEnvironment => Redis::start_with_password(PASSWORD).unwrap(),
    };
    let upstream = Upstream::start().unwrap();
    let sidecar = (store == Store::Sidecar).then(|| Sidecar::start(&redis.url(), 1000).unwrap());
    let place = sidecar.as_ref().map_or(redis.address(), Sidecar::address);
    let envoy = Envoy {
        limits: limits(&five_logins()),
        store,
        store_place: place.to_string().parse().unwrap(),
        topology: Topology::Single,
        login,
        secret: String::new(),
        listen: "127.0.0.1:0".parse().unwrap(),
        upstream: upstream.address().to_string().parse().unwrap(),
        wasm: artifact::wasm().unwrap().display().to_string(),
    };
    let setting = Setting {
        // Tests take free ports.
        bootstrap: envoy
            .configuration()
            .unwrap()
            .replace("port_value: 9901", "port_value: 0"),
        overlay: None,
        environment: [("REDIS_USERNAME", ""), ("REDIS_PASSWORD", PASSWORD)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
    };
    let proxy = setting.start(Scratch::try_new("plain").unwrap());
    let statuses: Vec<u16> = (0..6).map(|_| proxy.status("/login")).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429], "{}", proxy.log());
    assert_eq!(upstream.requests(), 5);
}

#[test]
fn a_plain_envoy_limits_over_the_bridge() {
    answers(Store::Bridge, Login::None);
}

#[test]
fn a_plain_envoy_limits_over_the_bridge_with_a_password() {
    answers(Store::Bridge, Login::FromEnvironment);
}

#[test]
fn a_plain_envoy_limits_over_the_sidecar() {
    answers(Store::Sidecar, Login::None);
}
