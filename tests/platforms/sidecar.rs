//! The pod of weir-store, as its Deployment says: the sidecar with those arguments, that
//! environment, and those files.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use weir_lab::process::Process;
use weir_lab::scratch::Scratch;
use weir_lab::{artifact, port};

use crate::manifest::{Services, all, items, name, one, text};

const START: Duration = Duration::from_secs(20);

/// Each Secret's keys with what they hold.
pub type Secrets = BTreeMap<String, BTreeMap<String, String>>;

// In the order they are dropped: the process before its folder.
pub struct Sidecar {
    pub address: SocketAddr,
    _process: Process,
    _files: Scratch,
}

/// Those of the manifests, and those that are there already.
pub fn secrets(objects: &[Value], others: &[(&str, &str, &str)]) -> Secrets {
    let mut secrets = Secrets::new();
    for object in all(objects, "Secret") {
        let data = object["stringData"]
            .as_object()
            .expect("a Secret holds something");
        let data = data
            .iter()
            .map(|(key, value)| (key.clone(), text(value).to_owned()));
        secrets.insert(name(object).to_owned(), data.collect());
    }
    for (secret, key, value) in others {
        let secret = secrets.entry((*secret).to_owned()).or_default();
        secret.insert((*key).to_owned(), (*value).to_owned());
    }
    secrets
}

/// The environment of a container, its Secrets read.
pub fn environment(container: &Value, secrets: &Secrets) -> Vec<(String, String)> {
    let variable = |variable: &Value| {
        let value = match &variable["valueFrom"]["secretKeyRef"] {
            Value::Null => text(&variable["value"]).to_owned(),
            from => secrets[text(&from["name"])][text(&from["key"])].clone(),
        };
        (text(&variable["name"]).to_owned(), value)
    };
    items(&container["env"]).map(variable).collect()
}

impl Sidecar {
    pub fn start(objects: &[Value], services: &Services, secrets: &Secrets) -> Sidecar {
        let deployments = all(objects, "Deployment");
        let store: Vec<Value> = deployments
            .filter(|it| name(it) == "weir-store")
            .cloned()
            .collect();
        let pod = &one(&store, "Deployment")["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        assert_eq!(container["ports"][0]["containerPort"], 6380);

        let files = Scratch::try_new("pod").unwrap();
        for source in items(&pod["volumes"][0]["projected"]["sources"]) {
            for item in items(&source["secret"]["items"]) {
                let secret = &secrets[text(&source["secret"]["name"])];
                fs::write(files.file(text(&item["path"])), &secret[text(&item["key"])]).unwrap();
            }
        }
        // Tests listen on loopback only, and on ports that are free.
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free().unwrap()));
        let mount = format!("{}/", text(&container["volumeMounts"][0]["mountPath"]));
        let folder = format!("{}/", files.path().display());
        let arguments = items(&container["args"]).map(|argument| {
            let argument = text(argument).replace("0.0.0.0:6380", &address.to_string());
            services.resolve(&argument.replace(&mount, &folder))
        });
        let mut command = Command::new(artifact::sidecar().unwrap());
        command
            .args(arguments)
            .envs(environment(container, secrets));
        let process = Process::spawn("the sidecar", command, &files.file("sidecar.log")).unwrap();
        process
            .wait_ready(START, || TcpStream::connect(address).is_ok())
            .unwrap();
        Sidecar {
            address,
            _process: process,
            _files: files,
        }
    }
}
