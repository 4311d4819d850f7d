//! `envoy/render.sh`, the one renderer of the configurations.

use std::{fs, process::Command};

use weir_lab::{place, scratch::Scratch};

/// What `render.sh` prints, or what it complains of.
fn render(template: &str, variables: &[(&str, &str)]) -> Result<String, String> {
    let scratch = Scratch::try_new("render").unwrap();
    let file = scratch.file("template.yaml");
    fs::write(&file, template).unwrap();
    let output = Command::new("sh")
        .arg(place::envoy().join("render.sh"))
        .arg(file)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if output.status.success() {
        Ok(text(output.stdout))
    } else {
        assert_eq!(text(output.stdout), "", "a failure prints no template");
        Err(text(output.stderr))
    }
}

#[test]
fn variables_are_filled_in_whatever_they_hold() {
    for value in [
        "plain",
        "",
        r"a/b&c\d",
        "[\"127.0.0.0/8\"]",
        "${B}",
        "it's",
        "$(false)",
        "*",
    ] {
        let rendered = render("x: ${A}, ${A}\ny: 1\n", &[("A", value), ("B", "no")]).unwrap();
        assert_eq!(rendered, format!("x: {value}, {value}\ny: 1\n"));
    }
}

#[test]
fn an_unset_variable_is_named() {
    let error = render("a: ${SET}\nb: ${UNSET}\n", &[("SET", "1")]).unwrap_err();
    assert!(error.contains("UNSET is not set"), "{error}");
    let error = render("a: ${A}\n", &[("A", "1\n2")]).unwrap_err();
    assert!(error.contains("A has more than one line"), "{error}");
}

#[test]
fn a_policy_arrives_as_it_was_written_but_for_the_indentation() {
    let scratch = Scratch::try_new("policy").unwrap();
    let file = scratch.file("policy.json");
    let path = file.to_str().unwrap();
    let policies = [
        "{\n\t\"a\": \"${A} \\\\ &\"\n}\n",
        "not JSON # at: all\n\n  - ...",
        "---\n",
        "",
    ];
    for policy in policies {
        fs::write(&file, policy).unwrap();
        let template = "value: |\n  first\n    ${POLICY}\n  last ${A}\n";
        let rendered = render(template, &[("A", "1"), ("POLICY", path)]).unwrap();
        let body = rendered.strip_prefix("value: |\n  first\n").unwrap();
        let body = body.strip_suffix("\n  last 1\n").unwrap();
        let lines: Vec<&str> = body
            .lines()
            .map(|line| line.strip_prefix("    ").unwrap_or(line))
            .collect();
        assert_eq!(lines.join("\n").trim_end(), policy.trim_end(), "{policy:?}");
    }
}

#[test]
fn a_policy_that_is_not_there_is_named() {
    let error = render("${POLICY}\n", &[("POLICY", "/nowhere/policy.json")]).unwrap_err();
    assert!(
        error.contains("cannot read the policy POLICY=/nowhere/policy.json"),
        "{error}"
    );
}
