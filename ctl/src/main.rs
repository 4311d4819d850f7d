//! The binary: what the operator types, and what is printed.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Display, Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{Args, Parser, Subcommand};
use redis::cluster::ClusterClientBuilder;
use redis::{
    Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, ConnectionLike, ErrorKind,
    IntoConnectionInfo, RedisError, TlsCertificates,
};
use serde_json::Value;
use weir_core::codec::namespace::Namespace;
use weir_core::live::poller::{CONFIGURED, Document};
use weir_core::observe::notice::Notice;
use weir_core::store::eviction;
use weir_ctl::shelf::{Outcome, Publication, Shelf};
use weir_ctl::time::readable;
use weir_ctl::{anew, changes};

/// Where the password comes from: neither the process list nor a shell's history shows it there.
const PASSWORD: &str = "WEIR_REDIS_PASSWORD";

/// The file that stands for the input.
const STDIN: &str = "-";

/// Redis is near, and a person waits.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Publishes policies for running gateways.
///
/// A policy that is published in Redis takes the place of the one in the gateways' configuration,
/// within their policy_poll_ms (2 seconds unless they say otherwise), without a restart.
#[derive(Parser)]
#[command(name = "weir-policy", version)]
struct Flags {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Say whether a policy is one, without asking Redis
    Check {
        /// The policy; - reads it from the input
        file: PathBuf,
        /// Take warnings for errors
        #[arg(long)]
        strict: bool,
    },
    /// Publish a policy
    Push {
        /// The policy; - reads it from the input
        file: PathBuf,
        /// Why, for whoever reads the history
        #[arg(long, default_value = "")]
        comment: String,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
        /// Take warnings for errors, and publish nothing then
        #[arg(long)]
        strict: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Publish a previous policy again
    Rollback {
        /// Its version; without it, the one before that which is published now
        #[arg(long)]
        to: Option<u64>,
        /// Why, for whoever reads the history
        #[arg(long, default_value = "")]
        comment: String,
        #[command(flatten)]
        place: Place,
    },
    /// Give the gateways back to the policies of their configurations
    Withdraw {
        /// Why, for whoever reads the history
        #[arg(long, default_value = "")]
        comment: String,
        #[command(flatten)]
        place: Place,
    },
    /// Print the policy that is published, or a previous one
    Show {
        /// Of this version
        #[arg(long)]
        version: Option<u64>,
        #[command(flatten)]
        place: Place,
    },
    /// List what is and was published
    History {
        #[command(flatten)]
        place: Place,
    },
}

/// Where Redis is. Its password is read from WEIR_REDIS_PASSWORD.
#[derive(Args)]
struct Place {
    /// HOST:PORT, redis://[user@]HOST[:PORT][/DB], or rediss:// for TLS
    #[arg(
        long,
        value_name = "URL",
        env = "WEIR_REDIS_URL",
        hide_env_values = true,
        default_value = "redis://127.0.0.1:6379"
    )]
    redis: String,
    /// The environment, where several share this Redis: `store.namespace` of its gateways
    #[arg(long, value_name = "NAME", env = "WEIR_NAMESPACE", default_value = "")]
    namespace: Namespace,
    /// Redis is a Redis Cluster; --redis names any of its nodes
    #[arg(long)]
    cluster: bool,
    /// Who signs the certificate of Redis, in PEM; without it, whom the system trusts
    #[arg(long, value_name = "FILE")]
    redis_ca: Option<PathBuf>,
    /// The certificate that Redis asks of its clients, in PEM
    #[arg(long, value_name = "FILE", requires = "redis_key")]
    redis_cert: Option<PathBuf>,
    /// The private key of --redis-cert, in PEM
    #[arg(long, value_name = "FILE", requires = "redis_cert")]
    redis_key: Option<PathBuf>,
}

fn main() -> ExitCode {
    // Printed here, since Rust's own way adds a backtrace that helps no operator.
    match perform(Flags::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads the output has read enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-policy: {}", words(&error));
            ExitCode::FAILURE
        }
    }
}

/// What went wrong, and why. Some errors say so themselves already.
fn words(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |told, cause| {
        let cause = cause.to_string();
        match told.as_str() {
            "" => cause,
            told if told.contains(&cause) => told.to_owned(),
            told => format!("{told}: {cause}"),
        }
    })
}

/// What is to be known of that Redis, if its user may ask.
fn notice(redis: &mut dyn ConnectionLike) -> Option<Notice> {
    let info: String = Cmd::new().arg("INFO").arg("memory").query(redis).ok()?;
    let policy = eviction::policy(&info)?;
    Some(Notice::Evicts(policy.to_owned()))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn perform(task: Task) -> Result<()> {
    let mut out = io::stdout().lock();
    match task {
        Task::Check { file, strict } => {
            let (_, document) = read(&file)?;
            describe(&mut out, &document)?;
            warn(&mut out, &document, strict)?;
            writeln!(out, "ok: {} is a policy", name(&file))?;
            Ok(())
        }
        Task::Push {
            file,
            comment,
            dry_run,
            strict,
            place,
        } => {
            let (text, document) = read(&file)?;
            let mut redis = place.open()?;
            if let Some(notice) = notice(&mut *redis) {
                eprintln!("weir-policy: warning: {notice}");
            }
            let mut shelf = place.shelf(&mut *redis);
            let current = shelf.current()?;
            let history = shelf.history()?;
            let seen = Seen {
                current: current.as_ref(),
                history: &history,
            };
            let changes = tell_changes(&mut out, seen, &text, &document)?;
            warn(&mut out, &document, strict)?;
            if dry_run || changes == Changes::None {
                return Ok(());
            }
            let version = publish(&mut shelf, current.as_ref(), &text, &comment)?;
            writeln!(out, "version {version} is published")?;
            Ok(())
        }
        Task::Rollback { to, comment, place } => {
            let mut redis = place.open()?;
            let mut shelf = place.shelf(&mut *redis);
            let current = shelf.current()?;
            let history = shelf.history()?;
            let target = match to {
                None => history
                    .first()
                    .with_context(|| nothing_before(current.as_ref()))?,
                Some(to) => find(&history, to)?,
            };
            let document = Document::read(&target.document)
                .map_err(|defect| anyhow!("version {} is no policy: {defect}", target.version))?;
            let seen = Seen {
                current: current.as_ref(),
                history: &history,
            };
            let changes = tell_changes(&mut out, seen, &target.document, &document)?;
            if changes == Changes::None {
                return Ok(());
            }
            let comment = match comment.is_empty() {
                true => format!("rollback to version {}", target.version),
                false => comment,
            };
            let version = publish(&mut shelf, current.as_ref(), &target.document, &comment)?;
            writeln!(
                out,
                "version {version} is published; it says what version {} said",
                target.version
            )?;
            if to.is_none() {
                tell_of_rollback_before(&mut out, seen)?;
            }
            Ok(())
        }
        Task::Withdraw { comment, place } => {
            let mut redis = place.open()?;
            let mut shelf = place.shelf(&mut *redis);
            let current = shelf.current()?;
            let history = shelf.history()?;
            let text = Value::from(CONFIGURED).to_string();
            let text = text.as_bytes();
            let document = Document::Configured;
            let seen = Seen {
                current: current.as_ref(),
                history: &history,
            };
            let changes = tell_changes(&mut out, seen, text, &document)?;
            if changes == Changes::None {
                return Ok(());
            }
            let version = publish(&mut shelf, current.as_ref(), text, &comment)?;
            writeln!(
                out,
                "version {version} is published; the gateways run the policies of their configurations"
            )?;
            Ok(())
        }
        Task::Show { version, place } => {
            let mut redis = place.open()?;
            let mut shelf = place.shelf(&mut *redis);
            let current = shelf.current()?;
            let is_asked = |publication: &Publication| {
                version.is_none_or(|version| publication.version == version.to_string())
            };
            let shown = match (current, version) {
                (Some(current), _) if is_asked(&current) => current,
                (_, Some(version)) => find(&shelf.history()?, version)?.clone(),
                (_, None) => bail!("nothing is published"),
            };
            // The document alone on the output, as a file to edit and push.
            eprintln!("{}", line(&shown));
            out.write_all(&shown.document)?;
            if !shown.document.ends_with(b"\n") {
                writeln!(out)?;
            }
            Ok(())
        }
        Task::History { place } => {
            let mut redis = place.open()?;
            let mut shelf = place.shelf(&mut *redis);
            match shelf.current()? {
                Some(current) => writeln!(out, "{} <- published now", line(&current))?,
                None => writeln!(out, "nothing is published now")?,
            }
            for previous in shelf.history()? {
                writeln!(out, "{}", line(&previous))?;
            }
            Ok(())
        }
    }
}

/// A policy's file, judged as the gateways will judge it.
fn read(file: &Path) -> Result<(Vec<u8>, Document)> {
    let name = name(file);
    let text = match file.as_os_str() == STDIN {
        true => {
            let mut text = Vec::new();
            io::stdin().read_to_end(&mut text).map(|_| text)
        }
        false => fs::read(file),
    };
    let text = text.with_context(|| format!("cannot read {name}"))?;
    let document = Document::read(&text).map_err(|defect| anyhow!("{name}: {defect}"))?;
    Ok((text, document))
}

fn name(file: &Path) -> Display<'_> {
    match file.as_os_str() == STDIN {
        true => Path::new("the input").display(),
        false => file.display(),
    }
}

fn describe(out: &mut impl Write, document: &Document) -> Result<()> {
    let Document::Policy(policy) = document else {
        writeln!(out, "the policy of the gateways' own configuration")?;
        return Ok(());
    };
    write!(out, "{}", policy.table())?;
    Ok(())
}

/// Tells what is legal in a policy and probably not meant. Where that is not good enough, it is an error.
fn warn(out: &mut impl Write, document: &Document, strict: bool) -> Result<()> {
    let Document::Policy(policy) = document else {
        return Ok(());
    };
    let mut warnings = policy.warnings.clone();
    let header = policy.status.operator_header.as_ref();
    if header.is_some_and(|header| header.is_written_out) {
        warnings.push(
            "the operators' secret is in this policy: whoever reads Redis reads it, and whoever reaches a \
             sidecar that has no --secret-file; instead of \"value\" write its \"sha256\", which `printf %s \
             SECRET | sha256sum` prints"
                .into(),
        );
    }
    for warning in &warnings {
        writeln!(out, "warning: {warning}")?;
    }
    ensure!(
        !strict || warnings.is_empty(),
        "{}, and --strict takes each for an error",
        match warnings.len() {
            1 => "there is 1 warning".to_owned(),
            count => format!("there are {count} warnings"),
        }
    );
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Changes {
    None,
    Some,
}

/// What was found in Redis: what is published, and what was before, the newest first.
#[derive(Clone, Copy)]
struct Seen<'a> {
    current: Option<&'a Publication>,
    history: &'a [Publication],
}

/// Says what a document changes about what is published.
fn tell_changes(
    out: &mut impl Write,
    Seen { current, history }: Seen<'_>,
    text: &[u8],
    document: &Document,
) -> Result<Changes> {
    let Some(current) = current else {
        writeln!(out, "{}", nothing_now(history))?;
        describe(out, document)?;
        return Ok(Changes::Some);
    };
    let old = match Document::read(&current.document) {
        Ok(old) => old,
        Err(defect) => {
            let version = &current.version;
            writeln!(
                out,
                "version {version} is no policy, and gateways refuse it: {defect}"
            )?;
            describe(out, document)?;
            return Ok(Changes::Some);
        }
    };
    let (before, after) = (
        serde_json::from_slice(&current.document)?,
        serde_json::from_slice(text)?,
    );
    let changes = changes::between(&before, &after);
    for change in &changes {
        writeln!(out, "{change}")?;
    }
    if changes.is_empty() {
        writeln!(
            out,
            "nothing changes: version {} says the same",
            current.version
        )?;
        return Ok(Changes::None);
    }
    match (&old, document) {
        (Document::Policy(old), Document::Policy(new)) => {
            for line in anew::between(old, new) {
                writeln!(out, "! {line}")?;
            }
        }
        _ => writeln!(
            out,
            "! which counts begin anew is not known here: it depends on the gateways' configurations"
        )?,
    }
    Ok(Changes::Some)
}

/// A gateway keeps what it found last, so an empty Redis does not tell what any of them runs.
fn nothing_now(history: &[Publication]) -> String {
    match history.first() {
        Some(last) => format!(
            "nothing is published now; after version {} there was one that is gone. Gateways that run it \
             keep it; those that start run the policies of their configurations",
            last.version
        ),
        None => "nothing is published now, and this Redis knows of nothing before. Gateways run the policies \
                 of their configurations; if this Redis has lost its data, they keep what they found last"
            .to_owned(),
    }
}

/// Why there is nothing to go back to, and what to do instead.
fn nothing_before(current: Option<&Publication>) -> String {
    match current {
        None => "nothing is published, and nothing was before: there is nothing to go back to"
            .to_owned(),
        Some(current) => format!(
            "nothing was published before version {}; to give the gateways back to the policies of their \
             configurations, use `weir-policy withdraw` (`make policy-withdraw`)",
            current.version
        ),
    }
}

/// A rollback of a rollback brings back what the first took away, which is seldom meant.
fn tell_of_rollback_before(
    out: &mut impl Write,
    Seen { current, history }: Seen<'_>,
) -> Result<()> {
    let Some(current) = current else {
        return Ok(());
    };
    let older = history.iter().enumerate().skip(1);
    let mut same = older.filter(|(_, one)| one.document == current.document);
    if let (Some((place, same)), Some(target)) = (same.next(), history.first()) {
        writeln!(
            out,
            "version {} said what version {} said, so this took that rollback back: what version {} said is \
             in force again",
            current.version, same.version, target.version
        )?;
        if let Some(further) = history.get(place + 1) {
            writeln!(
                out,
                "to go further back: `weir-policy rollback --to {0}` (`make policy-rollback TO={0}`)",
                further.version
            )?;
        }
    }
    Ok(())
}

/// The version that it is published as.
fn publish(
    shelf: &mut Shelf<'_>,
    current: Option<&Publication>,
    text: &[u8],
    comment: &str,
) -> Result<u64> {
    match shelf.publish(current, text, comment)? {
        Outcome::Published { version } => Ok(version),
        Outcome::Overtaken => bail!(
            "somebody else published meanwhile, and nothing was changed: \
             see what with `weir-policy history`, and push again"
        ),
    }
}

fn find(history: &[Publication], version: u64) -> Result<&Publication> {
    let mut previous = history.iter();
    previous
        .find(|previous| previous.version == version.to_string())
        .with_context(|| {
            let kept: Vec<&str> = history.iter().map(|one| one.version.as_str()).collect();
            format!(
                "version {version} is not kept; those before are {}",
                match kept.is_empty() {
                    true => "none".to_owned(),
                    false => kept.join(", "),
                }
            )
        })
}

fn line(publication: &Publication) -> String {
    let Publication {
        version,
        published_at,
        comment,
        ..
    } = publication;
    let line = format!("version {version}  {}  {comment}", readable(published_at));
    line.trim_end().to_owned()
}

impl Place {
    fn shelf<'a>(&self, redis: &'a mut dyn ConnectionLike) -> Shelf<'a> {
        // Not on the output, which may be a policy to edit: it is easy to mean another Redis.
        if let Ok(info) = self.info() {
            let namespace = self.namespace.name();
            let namespace = namespace.map(|name| format!(", namespace {name}"));
            eprintln!("Redis at {}{}", info.addr(), namespace.unwrap_or_default());
        }
        Shelf::new(redis, &self.namespace)
    }

    fn open(&self) -> Result<Box<dyn ConnectionLike>> {
        // Whoever chose one before chose well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut info = self.info()?;
        let shown = info.addr().to_string();
        if let Ok(password) = std::env::var(PASSWORD)
            && !password.is_empty()
        {
            let settings = info.redis_settings().clone().set_password(password);
            info = info.set_redis_settings(settings);
        }
        let certificates = self.certificates()?;
        let failed = |error: RedisError| match error.kind() {
            ErrorKind::Parse => {
                anyhow!("what answers at {shown} is no Redis; is it the right port?")
            }
            _ => anyhow!(error).context(format!("Redis at {shown}")),
        };
        let mut connection: Box<dyn ConnectionLike> = match self.cluster {
            false => {
                let client = match info.addr() {
                    ConnectionAddr::TcpTls { .. } => Client::build_with_tls(info, certificates),
                    _ => Client::open(info),
                };
                let connection = client
                    .and_then(|client| client.get_connection_with_timeout(TIMEOUT))
                    .map_err(failed)?;
                connection.set_read_timeout(Some(TIMEOUT))?;
                Box::new(connection)
            }
            true => {
                let is_tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
                let mut builder = ClusterClientBuilder::new([info])
                    .connection_timeout(TIMEOUT)
                    .response_timeout(TIMEOUT);
                if is_tls {
                    builder = builder.certs(certificates);
                }
                let connection = builder.build().and_then(|client| client.get_connection());
                Box::new(connection.map_err(failed)?)
            }
        };
        // Without a password a connection opens, and says so at the first command.
        let pinged = Cmd::new().arg("PING").exec(&mut *connection);
        if let Err(error) = pinged
            && error.code() == Some("NOAUTH")
        {
            bail!(
                "Redis at {shown} asks for a password: put it in {PASSWORD}, and a user other than \
                 default into the URL, as in redis://USER@HOST:PORT"
            );
        }
        Ok(connection)
    }

    fn info(&self) -> Result<ConnectionInfo> {
        let url = match self.redis.contains("://") {
            true => self.redis.clone(),
            // Without a port it would be a host by the name of a number, and its default port.
            false if !self.redis.contains(':') => String::new(),
            false => format!("redis://{}", self.redis),
        };
        let info = url.as_str().into_connection_info();
        // The URL may hold a password, so it is not shown.
        info.map_err(|_| anyhow!("--redis: expected HOST:PORT or redis://HOST:PORT"))
    }

    fn certificates(&self) -> Result<TlsCertificates> {
        let pem = |file: &PathBuf| {
            fs::read(file).with_context(|| format!("cannot read {}", file.display()))
        };
        let client_tls = match (&self.redis_cert, &self.redis_key) {
            (Some(cert), Some(key)) => Some(ClientTlsConfig {
                client_cert: pem(cert)?,
                client_key: pem(key)?,
            }),
            _ => None,
        };
        let given = self.redis_ca.is_some() || client_tls.is_some();
        ensure!(
            !given || self.redis.starts_with("rediss://"),
            "--redis-ca and --redis-cert are for TLS; write rediss:// in --redis"
        );
        Ok(TlsCertificates {
            client_tls,
            root_cert: self.redis_ca.as_ref().map(pem).transpose()?,
        })
    }
}
