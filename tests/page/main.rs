//! The live page in a real headless browser: an operator comes to the door, goes in, and reads what
//! happened; in the light and in the dark, on a desk and on a phone. `WEIR_PAGE_SHOTS=folder` keeps
//! pictures. Where there is no Chromium, it says so.

mod browser;
mod simulation;

use std::{path::PathBuf, time::Duration};

use weir_lab::{
    deadline,
    gateway::{Gateway, Policy},
    redis::Redis,
};

use crate::browser::{Browser, Look};

const PATH: &str = "/api/v1/rate-limits/status/page";
const SECRET: &str = "only-operators-know-this";
const SOON: Duration = Duration::from_secs(60);

#[test]
fn an_operator_sees_in_a_browser_what_a_gateway_does() {
    let Some(program) = browser::program() else {
        eprintln!(
            "SKIPPED: there is no Chromium. Install it (Debian: apt-get install chromium), or name one: \
             WEIR_CHROMIUM=/path/to/chromium"
        );
        return;
    };
    let mut redis = Redis::start().unwrap();
    let gateway = Gateway::builder()
        .redis(&redis)
        .timeout_ms(1000)
        .policy(Policy::Text(include_str!("policy.json").to_owned()))
        .start()
        .unwrap();
    traffic(&gateway);

    let mut browser = Browser::open(&program).unwrap();
    browser
        .go(&format!("http://{}{PATH}", gateway.address()))
        .unwrap();
    until(&mut browser, "the door is open", "!at('door').hidden");
    let room = browser.text("at('room').hidden").unwrap();
    assert_eq!(room, "true", "nothing is shown to strangers");

    // The second is one that no header could carry: the gateway was said not to answer.
    for wrong in ["not-the-secret-of-operators", "a-secret-that-costs-5-€"] {
        enter(&mut browser, wrong);
        until(
            &mut browser,
            "a wrong secret is told",
            "at('trouble').textContent.includes('not the operators')",
        );
    }
    enter(&mut browser, SECRET);
    until(
        &mut browser,
        "the room is open",
        "!at('room').hidden && at('door').hidden",
    );

    until(
        &mut browser,
        "the rule is there",
        "at('rules').innerText.includes('hammered')",
    );
    let heavy_hitters = browser.text("at('heavy_hitters').innerText").unwrap();
    assert!(heavy_hitters.contains("mallory"), "{heavy_hitters}");
    assert!(
        heavy_hitters.contains("tried (on trial)"),
        "{heavy_hitters}"
    );
    assert!(
        heavy_hitters.contains("<img src=x onerror=document.title='owned'>"),
        "a caller's name is text: {heavy_hitters}"
    );
    // Which gateway it is: by its address, where Envoy was given no name.
    let name = gateway.address().to_string();
    assert_eq!(
        browser.text("document.title").unwrap(),
        format!("Weir: {name}")
    );
    let which = browser.text("at('which').textContent").unwrap();
    assert!(which.contains(&name), "{which}");
    assert!(
        heavy_hitters.contains("deny.users"),
        "who is blocked, and by what: {heavy_hitters}"
    );
    follow(&mut browser, "mallory");
    until(
        &mut browser,
        "where the caller stands is told",
        "at('caller-limits').innerText.includes('hammered')",
    );
    let told = browser.text("at('caller').innerText").unwrap();
    for words in [
        "mallory (tier free, assumed)",
        "Pass user_tier",
        r#""deny": { "users": ["mallory"] }"#,
    ] {
        assert!(told.contains(words), "{words} in {told}");
    }
    // A name that would be markup, in the page's address and back.
    follow(&mut browser, "<img src=x onerror=document.title='owned'>");
    until(
        &mut browser,
        "who is called like markup is told as text",
        "at('caller-title').textContent.startsWith('<img src=x')",
    );
    // The interval under way is not drawn: what was called shows when it is over.
    let drawn = "document.querySelector('polygon[data-outcome=denied]').getBBox().height > 10";
    until(&mut browser, "refusals are drawn", drawn);
    until(
        &mut browser,
        "the share is told",
        "/\\d %/.test(at('rules').innerText)",
    );
    let figures = browser.text("at('figures').innerText").unwrap();
    assert!(
        figures.contains("well") && figures.contains("from its configuration"),
        "{figures}"
    );

    for (name, look) in [
        (
            "desk-light",
            Look {
                width: 1280,
                height: 1000,
                scheme: "light",
            },
        ),
        (
            "desk-dark",
            Look {
                width: 1280,
                height: 1000,
                scheme: "dark",
            },
        ),
        (
            "phone-light",
            Look {
                width: 390,
                height: 844,
                scheme: "light",
            },
        ),
        (
            "phone-dark",
            Look {
                width: 390,
                height: 844,
                scheme: "dark",
            },
        ),
    ] {
        browser.look(look).unwrap();
        let wide = "document.documentElement.scrollWidth <= document.documentElement.clientWidth";
        until(&mut browser, "it fits the screen", wide);
        until(
            &mut browser,
            "what the trial would do is told",
            "at('rules').innerText.includes('30 of 40 would be refused')",
        );
        let ground = browser
            .text("getComputedStyle(document.body).backgroundColor")
            .unwrap();
        let expected = match look.scheme {
            "dark" => "rgb(17, 22, 28)",
            _ => "rgb(246, 247, 249)",
        };
        assert_eq!(ground, expected, "{name}");
        if let Some(folder) = std::env::var_os("WEIR_PAGE_SHOTS") {
            let file = PathBuf::from(folder).join(format!("{name}.png"));
            std::fs::write(file, browser.picture().unwrap()).unwrap();
        }
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());

    redis.stop();
    let client = gateway.client();
    deadline::poll(SOON, "sign that Redis is away", || {
        client.get("/open/x").header("X-User-ID", "ann").send()?;
        let told = browser.text("at('figures').innerText")?;
        Ok(told.contains("not asked").then_some(()))
    })
    .unwrap();
    let told = browser.text("at('outage').innerText").unwrap();
    for words in [
        "Redis is not asked since",
        "Why: ",
        "What to do: See whether",
    ] {
        assert!(told.contains(words), "{words} in {told}");
    }
    browser
        .look(Look {
            width: 390,
            height: 844,
            scheme: "light",
        })
        .unwrap();
    until(
        &mut browser,
        "what was decided without Redis is told on a phone",
        "/\\d without Redis/.test(at('rules').innerText)",
    );
    if let Some(folder) = std::env::var_os("WEIR_PAGE_SHOTS") {
        let file = PathBuf::from(folder).join("phone-outage.png");
        std::fs::write(file, browser.picture().unwrap()).unwrap();
    }
}

/// Some that pass, some that a trial would refuse, and some that are refused again and again.
fn traffic(gateway: &Gateway) {
    let client = gateway.client();
    for _ in 0..40 {
        for (path, user) in [
            ("/open/x", "ann"),
            ("/tried/x", "ann"),
            ("/hammered/x", "mallory"),
            ("/hammered/x", "<img src=x onerror=document.title='owned'>"),
            ("/hammered/x", "bob"),
            ("/open/x", "banned"),
        ] {
            client.get(path).header("X-User-ID", user).send().unwrap();
        }
    }
}

fn follow(browser: &mut Browser, caller: &str) {
    let caller = serde_json::to_string(caller).unwrap();
    let script = format!(
        "[...at('heavy_hitters').querySelectorAll('a')].find(a => a.textContent === {caller}).click()"
    );
    browser.text(&script).unwrap();
}

fn enter(browser: &mut Browser, secret: &str) {
    let script = format!("at('secret').value = '{secret}'; at('door').requestSubmit(); 'done'");
    browser.text(&script).unwrap();
}

fn until(browser: &mut Browser, what: &str, condition: &str) {
    let seen = deadline::poll(SOON, what, || {
        Ok((browser.text(condition)? == "true").then_some(()))
    });
    if let Err(error) = seen {
        let body = browser.text("document.body.innerText").unwrap();
        panic!("{error:#}\n{body}");
    }
}
