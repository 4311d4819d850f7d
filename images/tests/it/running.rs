//! What is skipped for want of a tool says so: `make test-images` shows it.

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    process::{Command, Output},
    time::Duration,
};

use weir_images::{contents::Contents, layout, registry::Registry, release};
use weir_lab::{
    artifact, client::Client, deadline, gateway::Gateway, place, port, process::Process,
    redis::Redis, scratch::Scratch,
};

const SOON: Duration = Duration::from_secs(60);
/// The default, 50, is for a machine with processors to spare.
const TIMEOUT_MS: u64 = 1000;

/// An image that Docker was given, under a tag that nobody else has.
struct Loaded {
    name: String,
    _scratch: Scratch,
}

/// A container that is gone when dropped.
struct Container(String);

impl Loaded {
    fn of(contents: Contents) -> Option<Self> {
        if let Err(reason) = docker(&["version", "--format", "{{.Server.Version}}"]) {
            println!(
                "skipped: {contents:?} was not run: there is no Docker that answers: {reason}"
            );
            return None;
        }
        let scratch = Scratch::try_new("loaded").unwrap();
        let tag = format!("0.0.0-test.{}", std::process::id());
        let packed = contents.pack(&tag).unwrap();
        let file = scratch.file("image.tar");
        fs::write(&file, layout::archive(&packed.image).unwrap()).unwrap();
        let said = docker(&["load", "--input", file.to_str().unwrap()]).unwrap();
        let name = layout::full_name(&packed.image.name);
        assert!(said.contains(&name), "{said}");
        Some(Self {
            name,
            _scratch: scratch,
        })
    }

    fn start(&self, options: &[&str], arguments: &[&str]) -> Container {
        let confined = ["--read-only", "--cap-drop", "ALL"];
        let run = ["run", "--detach"].iter().chain(&confined).chain(options);
        let all: Vec<&str> = run
            .chain([&self.name.as_str()])
            .chain(arguments)
            .copied()
            .collect();
        Container(docker(&all).unwrap().trim().to_owned())
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        let _ = docker(&["image", "rm", "--force", &self.name]);
    }
}

impl Container {
    fn log(&self) -> String {
        docker(&["logs", &self.0]).unwrap_or_else(|error| error)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = docker(&["rm", "--force", "--volumes", &self.0]);
    }
}

/// What it prints, or what it complains of.
fn docker(arguments: &[&str]) -> Result<String, String> {
    run(Command::new("docker").args(arguments))
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let Output {
        status,
        stdout,
        stderr,
    } = output;
    let said = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if status.success() {
        Ok(said.concat())
    } else {
        Err(said.concat())
    }
}

/// Five pass and the sixth does not, by what Redis counted.
fn assert_limits(client: &Client) {
    for attempt in 1..=6 {
        let answer = client.get("/api/v1/auth/login").send().unwrap();
        let expected = if attempt < 6 { 200 } else { 429 };
        assert_eq!(answer.status, expected, "attempt {attempt}: {answer:?}");
        assert_eq!(answer.header("x-weir-degraded"), None, "{answer:?}");
    }
}

#[test]
#[ignore = "builds the sidecar and runs Docker: make test-images"]
fn the_sidecars_image_serves_a_gateway() {
    let Some(image) = Loaded::of(Contents::Sidecar) else {
        return;
    };
    let redis = Redis::start().unwrap();
    let port = port::free().unwrap().to_string();
    // By a name, which its C library resolves.
    let url = format!("redis://localhost:{}", redis.port());
    let listen = format!("127.0.0.1:{port}");
    let arguments = ["--listen", &listen, "--redis", &url, "--timeout-ms", "500"];
    let container = image.start(&["--network", "host"], &arguments);
    let client = Client::new(listen.parse().unwrap());
    deadline::poll(SOON, "healthy sidecar", || {
        let answer = client.get("/healthz").send();
        Ok(answer
            .is_ok_and(|answer| answer.status == 200)
            .then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", container.log()));

    let gateway = Gateway::builder()
        .redis(&redis)
        .timeout_ms(TIMEOUT_MS)
        .variable("STORE", "sidecar")
        .variable("SIDECAR_HOST", "127.0.0.1")
        .variable("SIDECAR_PORT", &port)
        .start()
        .unwrap();
    assert_limits(&gateway.client());
}

#[test]
#[ignore = "builds weirctl and runs Docker: make test-images"]
fn the_image_of_weirctl_judges_what_is_mounted() {
    let Some(image) = Loaded::of(Contents::Weirctl) else {
        return;
    };
    let policies = format!("{}:/policies:ro", place::envoy().display());
    let bad = format!(
        "{}:/policies:ro",
        place::project().join("tests/config").display()
    );
    let check = |policies: &str, file: &str| {
        docker(&[
            "run",
            "--rm",
            "--volume",
            policies,
            &image.name,
            "check",
            file,
        ])
    };
    check(&policies, "policy.json").unwrap();
    let complaint = check(&bad, "zero_limit.json").unwrap_err();
    assert!(complaint.contains("limit"), "{complaint}");
}

#[test]
#[ignore = "builds all that the demo starts and runs Docker: make test-images"]
fn the_demos_image_limits_by_one_command() {
    let Some(image) = Loaded::of(Contents::Demo) else {
        return;
    };
    let port = port::free().unwrap();
    let publish = format!("127.0.0.1:{port}:10000");
    let timeout = format!("TIMEOUT_MS={TIMEOUT_MS}");
    let options = [
        "--publish",
        &publish,
        "--env",
        &timeout,
        "--tmpfs",
        "/weir/.weir",
    ];
    let demo = image.start(&options, &[]);
    deadline::poll(SOON, "ready demo", || {
        Ok(demo.log().contains("weir is ready on").then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", demo.log()));
    let client = Client::new((Ipv4Addr::LOCALHOST, port).into());

    // Who the host says it is, is believed.
    let upload = client
        .get("/api/v1/media/upload")
        .header("X-User-ID", "alice")
        .header("X-User-Tier", "premium");
    let answer = upload.send().unwrap();
    let remaining = answer.header("x-ratelimit-remaining");
    assert_eq!(
        (answer.status, remaining.as_deref()),
        (200, Some("19")),
        "{answer:?}"
    );
    assert_limits(&client);

    // What it says one can type, with its own file.
    let log = demo.log();
    let typed = |what: &str| {
        let line = log.lines().find(|line| line.contains(what));
        line.unwrap_or_else(|| panic!("{what} is not explained:\n{log}"))
            .trim()
            .to_owned()
    };
    let push = typed("weirctl push").replace("policy.json", "envoy/policy.json");
    let shell = |line: &str| {
        run(Command::new("sh")
            .args(["-c", line])
            .current_dir(place::project()))
    };
    shell(&push).unwrap();
    shell(&typed("weir-lab outage")).unwrap();
    deadline::poll(SOON, "answer without Redis", || {
        let answer = client.get("/api/v1/items").send()?;
        Ok(answer.header("x-weir-degraded").map(drop))
    })
    .unwrap();
}

/// Another registry than the tests' own, and another client.
#[test]
#[ignore = "builds all images: make test-images"]
fn debians_registry_and_skopeo_take_every_image() {
    let is_there = |program: &str| run(Command::new(program).arg("--version")).is_ok();
    if !is_there("docker-registry") || !is_there("skopeo") {
        println!("skipped: docker-registry and skopeo are not both here (Debian has them)");
        return;
    }
    let scratch = Scratch::try_new("registry").unwrap();
    let address = (Ipv4Addr::LOCALHOST, port::free().unwrap());
    let place = format!("127.0.0.1:{}", address.1);
    let config = scratch.file("config.yml");
    let storage = scratch.file("storage");
    let text = format!(
        "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: '{}' }} }}\nhttp: {{ addr: '{place}' }}\n",
        storage.display()
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(&config);
    let registry = Process::spawn("the registry", command, &scratch.file("log")).unwrap();
    registry
        .wait_ready(SOON, || TcpStream::connect(address).is_ok())
        .unwrap();

    let built = fs::read(artifact::wasm().unwrap()).unwrap();
    for contents in Contents::ALL {
        let packed = contents.pack("1").unwrap();
        release::image(scratch.path(), contents, &packed).unwrap();
        let image = &packed.image;
        let prefixed = format!("{place}/org/weir");
        let mut client = Registry::try_new(&prefixed, None).unwrap();
        let pushed = client.push(image, &packed.sbom).unwrap();

        let name = format!("docker://{}", pushed.image);
        let shown = skopeo(&["inspect", "--raw", "--tls-verify=false", &name]);
        assert_eq!(shown.as_bytes(), image.manifest.bytes, "{contents:?}");
        // Once more from each form on disk, which changes no digest.
        let label = contents.label();
        let tag = &image.name.tag;
        let layout = format!("oci:{}:{tag}", scratch.file(label).display());
        let archive = format!(
            "oci-archive:{}:{tag}",
            scratch.file(&format!("{label}.tar")).display()
        );
        for (from, to) in [(layout, "layout"), (archive, "archive")] {
            let to = format!("docker://{place}/{to}/{label}:1");
            skopeo(&["copy", "--quiet", "--dest-tls-verify=false", &from, &to]);
            let shown = skopeo(&["inspect", "--raw", "--tls-verify=false", &to]);
            assert_eq!(
                shown.as_bytes(),
                image.manifest.bytes,
                "{contents:?} from {from}"
            );
        }
        if matches!(contents, Contents::Filter | Contents::FilterArtifact) {
            let agent = crate::agent::Agent::of(address.into());
            let fetched = agent
                .fetch("org/weir/filter", &pushed.digest, None)
                .unwrap();
            assert!(fetched == built, "{contents:?}");
        }
    }
}

fn skopeo(arguments: &[&str]) -> String {
    run(Command::new("skopeo")
        .arg("--insecure-policy")
        .args(arguments))
    .unwrap()
}
