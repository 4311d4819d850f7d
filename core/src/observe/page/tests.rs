use std::collections::HashMap;

use super::*;
use crate::codec::json::{At, Json};
use crate::decide::decision::Outcome;
use crate::policy::Policy;

fn page_of(status: &str) -> Answer {
    let text = format!("{{ \"status\": {status}, \"rules\": [] }}");
    let json = Json::parse(&text, "policy").unwrap();
    page(&Policy::try_new(&At::new(&json, "policy")).unwrap().status)
}

fn body(answer: &Answer) -> String {
    String::from_utf8(answer.body.clone()).unwrap()
}

#[test]
fn it_knows_the_operators_header_by_name_and_never_by_value() {
    let header = r#"{ "operator_header": { "name": "X-Op", "value": "a-long-enough-secret" } }"#;
    let answer = page_of(header);
    let body = body(&answer);
    assert_eq!(answer.status, 200);
    assert!(body.contains("const HEADER = 'x-op';") && !body.contains("a-long-enough-secret"));
}

#[test]
fn it_asks_for_no_secret_where_operators_have_a_tier() {
    let body = body(&page_of(r#"{ "operator_tier": "ops" }"#));
    assert!(body.contains("const HEADER = null;"));
}

#[test]
fn it_is_for_nobody_where_there_are_no_operators() {
    assert_eq!(page_of("{}").status, 403);
}

#[test]
fn it_brings_everything_along() {
    let outside = ["src=", "href=", "@import", "url(", "http://", "https://"];
    let own = HTML.replace("http://www.w3.org/2000/svg", "");
    // A pattern of the page's own.
    let own = own.replace("url(#", "");
    for word in outside {
        assert!(!own.contains(word), "{word}");
    }
    assert_eq!(HTML.matches(HEADER).count(), 1);
}

// === Colours ===

/// In light that adds up.
type Light = [f64; 3];

/// The page's colours by name: those of the light, or those of the dark.
fn colours(dark: bool) -> HashMap<&'static str, Light> {
    let block = HTML.split(":root {").nth(1 + usize::from(dark)).unwrap();
    let block = block.split('}').next().unwrap();
    let pairs = block.split(';').filter_map(|pair| pair.split_once(": #"));
    let channel = |hex: &str, at: usize, digits: usize| {
        let one = hex.get(at * digits..(at + 1) * digits).unwrap();
        let one = one.repeat(2 / digits);
        let value = f64::from(u8::from_str_radix(&one, 16).unwrap()) / 255.0;
        match value <= 0.04045 {
            true => value / 12.92,
            false => ((value + 0.055) / 1.055).powf(2.4),
        }
    };
    pairs
        .map(|(name, hex)| {
            let light = [0, 1, 2].map(|at| channel(hex, at, hex.len() / 3));
            (name.trim().trim_start_matches("--"), light)
        })
        .collect()
}

/// As WCAG 2.2 defines it.
fn contrast(one: Light, other: Light) -> f64 {
    let luminance = |light: Light| 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2];
    let (one, other) = (luminance(one) + 0.05, luminance(other) + 0.05);
    one.max(other) / one.min(other)
}

/// How eyes without one of the three kinds of cones see, after Machado, Oliveira and Fernandes
/// ("A physiologically-based model for simulation of color vision deficiency", 2009).
const EYES: [[[f64; 3]; 3]; 4] = [
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
];

fn times(matrix: [[f64; 3]; 3], light: Light) -> Light {
    matrix.map(|row| row.iter().zip(light).map(|(a, b)| a * b).sum())
}

/// How far apart two colours look, by Oklab (Ottosson, 2020).
fn apart(one: Light, other: Light) -> f64 {
    let lab = |light: Light| {
        let cones = times(
            [
                [0.4122214708, 0.5363325363, 0.0514459929],
                [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005],
            ],
            light.map(|channel| channel.clamp(0.0, 1.0)),
        );
        times(
            [
                [0.2104542553, 0.7936177850, -0.0040720468],
                [1.9779984951, -2.4285922050, 0.4505937099],
                [0.0259040371, 0.7827717662, -0.8086757660],
            ],
            cones.map(f64::cbrt),
        )
    };
    let squares = lab(one).into_iter().zip(lab(other));
    squares.map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

/// Each outcome with its pattern; plain ones have an empty one.
fn outcomes() -> Vec<(&'static str, &'static str)> {
    let stack = HTML.split("const STACK = { ").nth(1).unwrap();
    let stack = stack.split(" };").next().unwrap();
    let pairs = stack.split(", ").filter_map(|pair| pair.split_once(": "));
    pairs
        .map(|(name, path)| (name, path.trim_matches('\'')))
        .collect()
}

#[test]
fn what_is_to_be_read_stands_out_from_the_ground_it_is_on() {
    for dark in [false, true] {
        let colours = colours(dark);
        let text = ["ink", "soft", "good", "bad"];
        for name in text
            .into_iter()
            .chain(outcomes().iter().map(|(name, _)| *name))
        {
            for ground in ["card", "ground"] {
                let contrast = contrast(colours[name], colours[ground]);
                assert!(
                    contrast >= 4.5,
                    "{name} on {ground}, dark: {dark}: {contrast}"
                );
            }
        }
    }
}

#[test]
fn outcomes_are_told_apart_by_whoever_sees_no_red_no_green_or_no_blue() {
    let outcomes = outcomes();
    let names: Vec<&str> = outcomes.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), Outcome::ALL.len());
    assert!(
        Outcome::ALL
            .iter()
            .all(|outcome| names.contains(&outcome.name()))
    );
    for dark in [false, true] {
        let colours = colours(dark);
        for (place, (one, own)) in outcomes.iter().enumerate() {
            for (other, others) in outcomes.iter().skip(place + 1) {
                let apart =
                    EYES.map(|eyes| apart(times(eyes, colours[one]), times(eyes, colours[other])));
                let least = apart.into_iter().fold(f64::INFINITY, f64::min);
                // A tenth of the way from black to white is seen at a glance.
                assert!(
                    own != others || least > 0.1,
                    "{one} and {other}, dark: {dark}: {least}"
                );
            }
        }
    }
}
