use super::*;
use crate::codec::json::Json;

fn sources(text: &str) -> Result<Sources, ConfigError> {
    let json = Json::parse(text, "identity").unwrap();
    Sources::try_new(&At::new(&json, "identity"))
}

#[test]
fn a_user_comes_before_a_key_and_a_key_before_an_address() {
    let sources = sources(r#"{"trust": "always"}"#).unwrap();
    let address = b"192.0.2.7:1234";
    let ip: IpAddr = "192.0.2.7".parse().unwrap();
    let key = Subject::ApiKey(
        "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b".to_string(),
    );
    for (user, tier, api_key, subject, expected_tier) in [
        ("ann", "", "", Subject::User(b"ann".to_vec()), "free"),
        (
            "ann",
            "premium",
            "secret",
            Subject::User(b"ann".to_vec()),
            "premium",
        ),
        ("", "premium", "secret", key.clone(), "premium"),
        ("", "", "secret", key, "free"),
        ("", "premium", "", Subject::Address(Some(ip)), "anonymous"),
    ] {
        let credentials = Credentials {
            user: Some(user.as_bytes()),
            tier: Some(tier.as_bytes()),
            api_key: Some(api_key.as_bytes()),
        };
        let caller = sources.caller(credentials, address);
        assert_eq!(
            (caller.subject, caller.tier.as_str()),
            (subject, expected_tier)
        );
        assert_eq!(caller.client, Some(ip));
    }
}

#[test]
fn a_key_follows_its_scheme_however_that_is_written() {
    let sources = sources(
        r#"{"trust": "always", "api_key": {"header": "Authorization", "scheme": "Bearer"}}"#,
    )
    .unwrap();
    assert_eq!(sources.header(Field::ApiKey), Some(AUTHORIZATION));
    assert!(sources.warning().is_none());
    for (value, key) in [
        ("Bearer k", Some("k")),
        ("bearer k", Some("k")),
        ("BEARER  \t k ", Some("k")),
        ("Bearer k l", Some("k l")),
        ("Bearer ", Some("")),
        ("Bearer", None),
        ("Bearerk", None),
        ("Basic k", None),
        (" Bearer k", None),
        ("Bear", None),
        ("k", None),
        ("", None),
    ] {
        assert_eq!(
            sources.key(value.as_bytes()),
            key.map(str::as_bytes),
            "{value:?}"
        );
    }
}

#[test]
fn without_a_scheme_all_of_a_header_is_the_key() {
    let of = |key: &str| sources(&format!(r#"{{"trust": "always", "api_key": {key}}}"#));
    for (key, warned) in [
        (r#""X-Key""#, false),
        (r#"{"header": "X-Key"}"#, false),
        (r#"{"claim": ["jwt", "key"]}"#, false),
        (r#""Authorization""#, true),
        (r#"{"header": "authorization"}"#, true),
    ] {
        let sources = of(key).unwrap();
        assert_eq!(sources.key(b"Bearer k"), Some(&b"Bearer k"[..]), "{key}");
        assert_eq!(sources.warning().is_some(), warned, "{key}");
    }
    for (key, told) in [
        (r#"{"header": "x", "scheme": "two words"}"#, "is no scheme"),
        (r#"{"header": "x", "scheme": ""}"#, "is no scheme"),
        (
            r#"{"header": "x", "scheme": "a", "type": "string"}"#,
            "type",
        ),
        (r#"{"claim": ["jwt", "key"], "scheme": "a"}"#, "scheme"),
    ] {
        let error = of(key).unwrap_err().to_string();
        assert!(error.contains(told), "{key}: {error}");
    }
}

#[test]
fn only_trusted_peers_are_believed() {
    let peer = |text: &'static str| move || text.parse().ok();
    let trust = sources(r#"{"trust": ["127.0.0.0/8", "::1/128"]}"#)
        .unwrap()
        .trust;
    assert_eq!(trust.belief(peer("127.0.0.9")), Belief::Believed);
    assert_eq!(trust.belief(peer("::1")), Belief::Believed);
    assert_eq!(trust.belief(peer("10.0.0.1")), Belief::Ignored);
    assert_eq!(trust.belief(|| None), Belief::Ignored);
    assert_eq!(
        Trust::Always.belief(|| panic!("not needed")),
        Belief::Believed
    );
    assert_eq!(
        Trust::Never.belief(|| panic!("not needed")),
        Belief::Ignored
    );
}

#[test]
fn the_direct_peer_is_told_by_a_filter_state_or_a_header() {
    for (text, told) in [
        (
            r#"{"trust": "never"}"#,
            Peer::FilterState("weir.direct_peer".to_string()),
        ),
        (
            r#"{"trust": "never", "direct_peer": "their.own"}"#,
            Peer::FilterState("their.own".to_string()),
        ),
        (
            r#"{"trust": "never", "direct_peer": {"header": "X-Weir-Peer"}}"#,
            Peer::Header("x-weir-peer".to_string()),
        ),
    ] {
        let sources = sources(text).unwrap();
        assert_eq!(
            sources.is_peer(b"x-weir-peer"),
            matches!(told, Peer::Header(_))
        );
        assert_eq!(sources.direct_peer, told);
    }
}

#[test]
fn a_claim_is_a_property_with_a_type() {
    let sources =
        sources(r#"{"trust": "never", "user": {"claim": ["jwt", "sub"], "type": "number"}}"#)
            .unwrap();
    let (path, kind) = sources.user.property().unwrap();
    assert_eq!(
        path.join("/"),
        "metadata/filter_metadata/envoy.filters.http.jwt_authn/jwt/sub"
    );
    assert_eq!(kind.read(&42f64.to_le_bytes()), Some(b"42".to_vec()));
    assert_eq!(kind.read(b"42"), None);
    assert_eq!(sources.field(b"x-user-id"), None);
    assert_eq!(sources.field(b"x-user-tier"), Some(Field::Tier));
}

#[test]
fn bad_sources_are_refused_with_the_mend() {
    for (text, reason) in [
        ("{}", "lacks the field \"trust\""),
        (
            r#"{"trust": "sometimes"}"#,
            "says whose identity headers are believed",
        ),
        (r#"{"trust": ["10.0.0.1/8"]}"#, "did you mean 10.0.0.0/8?"),
        (r#"{"trust": "never", "user": "X User"}"#, "is no header"),
        (
            r#"{"trust": "never", "direct_peer": 7}"#,
            "a header that it sets itself",
        ),
        (
            r#"{"trust": "never", "direct_peer": {"header": ":path"}}"#,
            "is no header",
        ),
        (
            r#"{"trust": "never", "user": {"claim": ["sub"]}}"#,
            "too short",
        ),
        (
            r#"{"trust": "never", "ipv6_prefix": 129}"#,
            "expected 1 to 128",
        ),
    ] {
        let error = sources(text).unwrap_err();
        assert!(error.to_string().contains(reason), "{text}: {error}");
    }
}
