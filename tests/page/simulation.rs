//! The page that `weirctl simulate` writes, in a browser: it is whole, draws what the report says, takes
//! names for text, and fits a desk and a phone, in the light and in the dark.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use weir_cli::document::Source;
use weir_cli::log::{Log, Merged, Progress};
use weir_cli::simulate::{Assumptions, Caller, Curves, Named, page, simulate};
use weir_core::live::poller::Document;
use weir_lab::scratch::Scratch;

use crate::browser::{self, Browser, Look};
use crate::until;

/// A caller whose name would be markup.
const EVIL: &str = "</script><img src=x onerror=document.title='owned'>";

fn policy(file: &Path, limit: u64) -> Named {
    let text = format!(
        r#"{{"rules": [{{"name": "hammered", "pattern": "/api/*", "user_limits": {{"default":
            {{"type": "token_bucket", "limit": {limit}, "window": 60, "burst_limit": 5}}}}}}]}}"#
    );
    fs::write(file, text).unwrap();
    let Some(Document::Policy(policy)) = Source::read(file).unwrap().judge().document else {
        panic!("a policy");
    };
    Named {
        name: format!("limit-{limit}"),
        policy: *policy,
    }
}

/// An hour in which one caller hammers, one is called like markup, and a hundred are quiet.
fn written(scratch: &Scratch) -> PathBuf {
    let mut log = String::new();
    for second in 0..3600 {
        let quiet = format!("quiet{}", second % 100);
        for user in ["mallory", EVIL, quiet.as_str()] {
            let _ = writeln!(
                log,
                r#"{{"time": {}.{}, "path": "/api/x", "user": {user:?}, "status": 200}}"#,
                1_795_737_600 + second,
                user.len() % 10
            );
        }
    }
    let file = scratch.file("access.log");
    fs::write(&file, log + "broken\n").unwrap();
    let log = Log::open(&file, None, &[], &Progress::hidden()).unwrap();
    let assumptions = Assumptions {
        caller: Caller {
            identity: None,
            tier: None,
            trusted_hops: 0,
        },
        curves: Curves::Drawn,
    };
    let (new, old) = (scratch.file("new.json"), scratch.file("old.json"));
    let (new, old) = (policy(&new, 10), policy(&old, 30));
    let report = simulate(&mut Merged::of(vec![log]), new, Some(old), &assumptions).unwrap();
    assert!(
        report
            .outcomes
            .iter()
            .any(|one| one.what == "denied" && one.count > 0)
    );
    let file = scratch.file("report.html");
    fs::write(&file, page(&report).unwrap()).unwrap();
    file
}

#[test]
fn the_page_of_a_simulation_is_read_in_a_browser() {
    let Some(program) = browser::program() else {
        eprintln!("SKIPPED: there is no Chromium; see the test of the live page");
        return;
    };
    let scratch = Scratch::try_new("simulation-page").unwrap();
    let file = written(&scratch);
    let mut browser = Browser::open(&program).unwrap();
    browser.go(&format!("file://{}", file.display())).unwrap();
    until(
        &mut browser,
        "the page is drawn",
        "at('not').children.length > 0",
    );
    let told = browser.text("document.body.innerText").unwrap();
    for words in [
        "limit-10 beside limit-30",
        "10,800",
        "hammered",
        "agrees with the log",
        "user mallory",
        EVIL,
        "lines that are broken",
        "token bucket, 10 in 60 s, burst 5",
    ] {
        assert!(told.contains(words), "{words} in {told}");
    }
    let title = browser.text("document.title").unwrap();
    assert!(title.starts_with("Weir: limit-10 on "), "{title}");
    // The marks of both policies on a curve that falls, refusals over the whole hour, bars of usage.
    let marks = browser.text("at('limits').textContent").unwrap();
    assert!(
        marks.contains("now 30") && marks.contains("proposed 10"),
        "{marks}"
    );
    for drawn in [
        "document.querySelectorAll('#limits circle').length === 7",
        "document.querySelectorAll('#limits rect').length >= 2",
        "document.querySelector('#refused path').getBBox().width > 400",
        "document.querySelector('#requests path').getBBox().height > 100",
    ] {
        assert_eq!(browser.text(drawn).unwrap(), "true", "{drawn}");
    }
    for (width, height) in [(1280, 1000), (390, 844)] {
        for (scheme, ground) in [("light", "rgb(246, 247, 249)"), ("dark", "rgb(17, 22, 28)")] {
            let look = Look {
                width,
                height,
                scheme,
            };
            browser.look(look).unwrap();
            let wide =
                "document.documentElement.scrollWidth <= document.documentElement.clientWidth";
            until(&mut browser, "it fits the screen", wide);
            let colour = "getComputedStyle(document.body).backgroundColor";
            assert_eq!(browser.text(colour).unwrap(), ground);
            // Words in pictures are as large as others, however small the screen is.
            let size =
                "document.querySelector('#requests text').getBoundingClientRect().height > 10";
            until(&mut browser, "pictures can be read", size);
            if let Some(folder) = env::var_os("WEIR_PAGE_SHOTS") {
                let file = PathBuf::from(folder).join(format!("simulation-{width}-{scheme}.png"));
                fs::write(file, browser.picture().unwrap()).unwrap();
            }
        }
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
