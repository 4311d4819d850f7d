//! `weirctl explain`: which rules and limits does a request meet, and why not the others?

use std::cell::RefCell;
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use serde::Serialize;
use serde_json::Value;
use weir_core::codec::json::{At, Json};
use weir_core::codec::namespace::Namespace;
use weir_core::decide::limiter::{self, Explanation, Facts, Standing, Step};
use weir_core::live::poller::Document;
use weir_core::live::snapshot::PolicySnapshot;
use weir_core::policy::rollout::Counting;
use weir_core::policy::{Limit, Mismatch, Policy, Rule};
use weir_core::quota::limit::Algorithm;
use weir_core::request::identity::{Belief, ClaimKind, Field, Source as From, Sources};
use weir_core::request::reading;
use weir_core::request::subject::{Subject, id_text};
use weir_core::time::WallTime;

use super::check::tell_mistakes;
use crate::console::{Console, DIM, Output, YELLOW};
use crate::document::Source;
use crate::exit::Exit;
use crate::request_line::RequestLine;

/// Explain which rules and limits a request meets, and why not the others
///
/// Nothing is asked or counted. Where the policy stands in a filter's configuration, `identity` there says
/// whom to believe; a policy alone says nothing of it, and every header is believed.
#[derive(Args)]
pub struct Explain {
    /// The policy, or a configuration that holds it
    policy: PathBuf,
    /// The path or the whole URL, maybe with the method before it: 'POST /login'
    #[arg(value_name = "REQUEST")]
    url: String,
    /// GET, where nothing else is said
    #[arg(short = 'X', long)]
    method: Option<String>,
    /// A request header: 'x-user-id: ann'
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The client's address
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<IpAddr>,
    /// Who opened the connection, if not the client: trust goes by it
    #[arg(long, value_name = "ADDRESS")]
    peer: Option<IpAddr>,
    /// The user, by the header or claim that the configuration names
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// The tier, likewise
    #[arg(long)]
    tier: Option<String>,
    /// The API key, likewise
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
    /// The environment that the gateways are in: counters are named by it
    #[arg(long, value_name = "NAME", env = "WEIR_NAMESPACE", default_value = "")]
    namespace: Namespace,
}

/// What Envoy would tell of the request.
struct Told {
    address: Vec<u8>,
    peer: Vec<u8>,
    claims: RefCell<Vec<(Vec<String>, Vec<u8>)>>,
    now: WallTime,
}

impl Facts for Told {
    fn source_address(&self) -> Vec<u8> {
        self.address.clone()
    }

    fn direct_peer(&self, _: &str) -> Option<Vec<u8>> {
        (!self.peer.is_empty()).then(|| self.peer.clone())
    }

    fn claim(&self, path: &[String]) -> Option<Vec<u8>> {
        let claims = self.claims.borrow();
        let claim = claims.iter().find(|(own, _)| own == path);
        claim.map(|(_, value)| value.clone())
    }

    fn time_of_day(&self) -> WallTime {
        self.now
    }
}

#[derive(Serialize)]
struct Report {
    method: String,
    host: String,
    path: String,
    /// How servers may read the path besides.
    readings: Vec<String>,
    caller: String,
    tier: String,
    belief: String,
    outcome: String,
    limits: Vec<Met>,
    others: Vec<Other>,
}

#[derive(Serialize)]
struct Met {
    rule: String,
    limit: String,
    counter: String,
    cost: u64,
    is_on_trial: bool,
}

/// A rule that asks for nothing.
#[derive(Serialize)]
struct Other {
    rule: String,
    why: String,
}

impl Explain {
    pub fn run(self, console: &mut Console) -> Result<Exit> {
        let line = match &self.method {
            Some(method) => RequestLine::of(method, &self.url),
            None => RequestLine::read(&self.url),
        }?;
        let judged = Source::read(&self.policy)?.judge();
        if judged.document.is_none() {
            tell_mistakes(console, judged)?;
            return Ok(Exit::No);
        }
        let policy = match judged.document {
            Some(Document::Policy(policy)) => policy,
            _ => bail!("it says to run the gateways' own policy, which is not known here"),
        };
        let is_alone = judged.identity.is_none();
        let identity = judged
            .identity
            .unwrap_or_else(|| r#"{"trust": "always"}"#.to_owned());
        let sources = sources(&identity)?;
        let mut headers: Vec<(String, String)> = vec![
            (":method".into(), line.method.clone()),
            (":path".into(), line.path.clone()),
            (":authority".into(), line.authority.clone()),
        ];
        for header in &self.headers {
            let (name, value) = header
                .split_once(':')
                .with_context(|| format!("--header {header}: expected NAME: VALUE"))?;
            let name = name.trim().to_ascii_lowercase();
            headers.push((name, value.trim().to_owned()));
        }
        let text = |address: Option<IpAddr>| address.map_or_else(String::new, |ip| ip.to_string());
        let facts = Told {
            address: text(self.ip).into_bytes(),
            peer: text(self.peer.or(self.ip)).into_bytes(),
            claims: RefCell::default(),
            now: now(),
        };
        let scheme = scheme(&identity)?;
        for (field, source, value) in [
            (Field::User, &sources.user, &self.user),
            (Field::Tier, &sources.tier, &self.tier),
            (Field::ApiKey, &sources.api_key, &self.api_key),
        ] {
            let Some(value) = value else { continue };
            let value = match (field, &scheme) {
                (Field::ApiKey, Some(scheme)) => format!("{scheme} {value}"),
                _ => value.clone(),
            };
            match source {
                From::Header(name) => headers.push((name.clone(), value)),
                From::Claim { path, kind } => {
                    let value = claim(*kind, &value)?;
                    facts.claims.borrow_mut().push((path.clone(), value));
                }
            }
        }
        let snapshot = Rc::new(PolicySnapshot::configured(Rc::new(*policy), self.namespace));
        let head = headers
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let explanation = limiter::explain(&snapshot, &sources, head, &facts);
        let report = report(&snapshot.policy, &explanation, &line, is_alone);
        match console.output {
            Output::Json => console.json("weirctl.explanation/1", &report)?,
            Output::Table => tell(console, &report)?,
        }
        Ok(Exit::Done)
    }
}

fn sources(identity: &str) -> Result<Sources> {
    let json = Json::parse(identity, "identity").map_err(|error| anyhow!("{error}"))?;
    Sources::try_new(&At::new(&json, "identity")).map_err(|error| anyhow!("{error}"))
}

/// What has to stand before an API key.
fn scheme(identity: &str) -> Result<Option<String>> {
    let identity: Value = serde_json::from_str(identity)?;
    let scheme = identity["api_key"]["scheme"].as_str();
    Ok(scheme.map(str::to_owned))
}

/// A claim as Envoy hands it over.
fn claim(kind: ClaimKind, value: &str) -> Result<Vec<u8>> {
    Ok(match kind {
        ClaimKind::Text => value.as_bytes().to_vec(),
        ClaimKind::Number => {
            let number: f64 = value
                .parse()
                .with_context(|| format!("{value:?}: the claim is a number"))?;
            number.to_le_bytes().to_vec()
        }
    })
}

fn now() -> WallTime {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    WallTime(since_epoch.map_or(0, |time| {
        u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
    }))
}

fn report(
    policy: &Policy,
    explanation: &Explanation<'_>,
    line: &RequestLine,
    is_alone: bool,
) -> Report {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let asked = explanation.asked();
    let limits: Vec<Met> = asked
        .iter()
        .filter_map(|asked| {
            let limit = policy.limit(asked.limit)?;
            Some(Met {
                rule: limit.rule.clone(),
                limit: words(limit),
                counter: text(asked.key),
                cost: asked.cost.get(),
                is_on_trial: asked.counting == Counting::Shadow,
            })
        })
        .collect();
    let others = explanation.rules.iter().filter_map(|(rule, standing)| {
        let is_met = limits.iter().any(|met| met.rule == rule.name());
        (!is_met).then(|| Other {
            rule: rule.name().to_owned(),
            why: why_not(rule, *standing, explanation),
        })
    });
    Report {
        method: line.method.clone(),
        host: line.authority.clone(),
        path: text(&explanation.path),
        readings: reading::others(&explanation.path)
            .iter()
            .map(|path| text(path))
            .collect(),
        caller: caller(explanation),
        tier: explanation.caller.tier.clone(),
        belief: belief(explanation, is_alone),
        outcome: outcome(&explanation.admission.step, limits.len()),
        others: others.collect(),
        limits,
    }
}

fn caller(explanation: &Explanation<'_>) -> String {
    let caller = &explanation.caller;
    let id = id_text(&caller.subject);
    match (&caller.subject, caller.address) {
        (Subject::Address(None), _) => "nobody: no address is known, nor any id".to_owned(),
        (Subject::Address(_), _) => format!("address {id}"),
        (Subject::User(_), Some(address)) => format!("user {id} at {address}"),
        (Subject::User(_), None) => format!("user {id}"),
        (Subject::ApiKey(_), Some(address)) => format!("{id} at {address}"),
        (Subject::ApiKey(_), None) => id,
    }
}

fn belief(explanation: &Explanation<'_>, is_alone: bool) -> String {
    let mut told = match explanation.belief {
        None => "no identity header was sent".to_owned(),
        Some(Belief::Believed) if is_alone => {
            "identity headers are believed, as the policy stands in no configuration that says whom \
             to believe"
                .to_owned()
        }
        Some(Belief::Believed) => "identity headers are believed, by identity.trust".to_owned(),
        Some(Belief::Ignored) => "identity headers are not believed: identity.trust does not name \
                                  the peer, and they are removed"
            .to_owned(),
    };
    if explanation.is_tier_assigned {
        told.push_str("; the tier is the policy's `tiers`' word");
    }
    if explanation.admission.is_tier_unknown {
        told.push_str("; the policy names no such tier");
    }
    told
}

fn outcome(step: &Step, limits: usize) -> String {
    match step {
        Step::Pass => "passes: no limit is for it".to_owned(),
        Step::Exempt(listed) => format!("passes uncounted: {}", listed.text()),
        Step::Block(answer, _, listed) => {
            format!("is refused with {}: {}", answer.status, listed.text())
        }
        Step::Ask(_) if limits == 0 => {
            "asks the store about the status call's own limit".to_owned()
        }
        Step::Ask(_) => "passes if every limit that is enforced has room for it".to_owned(),
        Step::Respond(answer, _) => format!(
            "is answered with {}: {}",
            answer.status,
            String::from_utf8_lossy(&answer.body).trim_end()
        ),
        Step::Report(_) => "is answered with the gateway's report".to_owned(),
        Step::Page(_) => "is answered with the live page".to_owned(),
    }
}

/// `user free 10/3600s token_bucket, burst 5`
fn words(limit: &Limit) -> String {
    let quota = limit.terms.quota;
    let mut told = limit.scope.name().to_owned();
    if !limit.label.is_empty() {
        told = format!("{told} {}", limit.label);
    }
    if let Some(name) = &limit.name {
        told = format!("{told} {name}");
    }
    let (count, period, algorithm) = (quota.limit(), quota.period(), quota.algorithm());
    told = format!("{told} {count}/{period} {}", algorithm.name());
    if algorithm == Algorithm::TokenBucket {
        told = format!("{told}, burst {}", quota.capacity());
    }
    match &limit.variant {
        Some(variant) => format!("{told}, variant {variant}"),
        None => told,
    }
}

/// Why a rule sets no limit to the request.
fn why_not(rule: &Rule, standing: Standing, explanation: &Explanation<'_>) -> String {
    let listed = |texts: Vec<String>| texts.join(", ");
    match standing {
        Standing::Off => "its mode is off".to_owned(),
        Standing::Mismatch(Mismatch::Pattern) => {
            let patterns = rule.patterns().map(str::to_owned);
            format!("path is not {}", listed(patterns.collect()))
        }
        Standing::Mismatch(Mismatch::Method) => {
            format!("method is not {}", listed(rule.methods().to_vec()))
        }
        Standing::Mismatch(Mismatch::Host) => {
            let hosts = rule.hosts().iter().map(ToString::to_string);
            format!("host is not {}", listed(hosts.collect()))
        }
        Standing::Mismatch(Mismatch::Except) => {
            let except = rule.except().map(str::to_owned);
            format!("path is among its except {}", listed(except.collect()))
        }
        Standing::Condition(place) => match rule.when().get(place) {
            Some(condition) => format!("does not hold: when {condition}"),
            None => "a condition does not hold".to_owned(),
        },
        Standing::For => match &explanation.admission.step {
            Step::Exempt(_) | Step::Block(..) => "is for it, but a list decides before".to_owned(),
            Step::Respond(..) => "is for it, but the request is answered before".to_owned(),
            Step::Report(_) | Step::Page(_) => "is for it, but Weir answers this path".to_owned(),
            Step::Pass | Step::Ask(_) => format!(
                "is for it, and has no limit for tier {} at this address, or the request lacks what a key \
                 names, or costs 0",
                explanation.caller.tier
            ),
        },
    }
}

fn tell(console: &mut Console, report: &Report) -> Result<()> {
    let host = match report.host.as_str() {
        "" => String::new(),
        host => format!("  host {host}"),
    };
    writeln!(console, "{} {}{host}", report.method, report.path)?;
    if !report.readings.is_empty() {
        writeln!(
            console,
            "  {DIM}servers may read {}{DIM:#}",
            report.readings.join(", ")
        )?;
    }
    writeln!(console, "{}, tier {}", report.caller, report.tier)?;
    writeln!(console, "  {DIM}{}{DIM:#}", report.belief)?;
    let width = |column: fn(&Met) -> &str| {
        let widths = report.limits.iter().map(|met| column(met).chars().count());
        widths.max().unwrap_or(0)
    };
    let rules = report.others.iter().map(|other| other.rule.chars().count());
    let rule = width(|met| &met.rule).max(rules.max().unwrap_or(0));
    let (limit, counter) = (width(|met| &met.limit), width(|met| &met.counter));
    for met in &report.limits {
        write!(
            console,
            "  {:rule$}  {:limit$}  {:counter$}  takes {}",
            met.rule, met.limit, met.counter, met.cost
        )?;
        match met.is_on_trial {
            true => writeln!(console, "  {YELLOW}on trial{YELLOW:#}")?,
            false => writeln!(console)?,
        }
    }
    for other in &report.others {
        writeln!(console, "{DIM}– {:rule$}  {}{DIM:#}", other.rule, other.why)?;
    }
    writeln!(console, "{}", report.outcome)?;
    Ok(())
}
