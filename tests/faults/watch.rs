//! A steady load on a gateway while something goes wrong, and what must be true of it all the same.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use weir_lab::{
    deadline,
    gateway::Gateway,
    load::{Ask, Load, Rate, Sample},
};

/// A busy machine may take so long to start something.
pub const START: Duration = Duration::from_secs(30);
pub const TIMEOUT_MS: u64 = 50;
/// No request may wait longer, but for one in a thousand.
const LATE: Duration = Duration::from_millis(TIMEOUT_MS + 50);
/// A request that only passes through is never this late, unless the machine is busy with others.
const STALL: Duration = Duration::from_millis(40);
/// Within a second the workers tell what they have counted.
const TOLD: Duration = Duration::from_millis(1500);
pub const MARK: &str = "x-weir-degraded";
/// What a caller of a tight limit may use in an hour, as the policy has it.
pub const TIGHT: usize = 40;
/// A replica lags by milliseconds; each caller asks twenty times a second.
const UNREPLICATED: usize = 5;
/// Together they reach the tight limits' bounds within seconds.
const TIGHT_CALLERS: u64 = 6;
const RATE: Rate = Rate {
    per_second: 300,
    callers: 24,
};
/// The longest look of a breaker and some, and a failover before it.
const RECOVERS: Duration = Duration::from_secs(15);
const DEGRADES: Duration = Duration::from_secs(5);
/// So many answers in a row without a mark, and all is well again.
const WELL: usize = 40;

/// How many requests of a caller Redis may let through. The workers' shares come on top while they
/// decide: together one more limit, and they mark what they let through.
#[derive(Clone, Copy, Debug)]
pub enum Counted {
    Throughout,
    /// What it counted before was lost.
    Afresh,
    /// The last of what it counted may not have reached the replica.
    ByReplica,
    /// The limit was raised.
    UpTo(usize),
}

/// A load under watch.
pub struct Watch<'a> {
    name: String,
    gateway: &'a Gateway,
    load: Load,
    before: Story,
    recovered: Option<Duration>,
    /// Requests besides the load, whose answers nobody reads.
    pub unseen: u64,
}

/// What the gateway's statistics tell.
#[derive(Clone, Copy, Debug)]
pub struct Story {
    /// Requests, whoever decided them.
    pub decided: u64,
    pub calls: u64,
    pub failures: u64,
    pub opened: u64,
    pub open_lanes: u64,
    pub allow: u64,
    pub local: u64,
    pub deny: u64,
}

/// What became of a load.
pub struct Outcome {
    name: String,
    pub samples: Vec<Sample>,
    /// What the statistics tell of it.
    pub story: Story,
    recovered: Option<Duration>,
}

impl<'a> Watch<'a> {
    /// Starts the load and sees that all is well.
    pub fn start(name: &str, gateway: &'a Gateway) -> Result<Self> {
        let mut watch = Self::unready(name, gateway)?;
        watch.recovers()?;
        watch.recovered = None;
        Ok(watch)
    }

    /// Starts the load where not all is well from the start.
    pub fn unready(name: &str, gateway: &'a Gateway) -> Result<Self> {
        let before = Story::read(gateway)?;
        let prefix = name.to_owned();
        let ask: Ask = Arc::new(move |number| mixture(&prefix, number));
        Ok(Self {
            name: name.to_owned(),
            gateway,
            load: Load::start(|| gateway.client(), RATE, &ask),
            before,
            recovered: None,
            unseen: 0,
        })
    }

    /// Goes on until as much more was answered as in this time, where nothing holds it up.
    pub fn go_on(&self, time: Duration) {
        let answered = || self.load.look(<[Sample]>::len);
        let end = answered() + RATE.within(time);
        // A load that is held up for longer is for those to judge who look at its samples.
        let _ = deadline::poll(time + DEGRADES, "load", || {
            Ok((answered() >= end).then_some(()))
        });
    }

    /// Waits until answers are marked, and lets it go on so for a while.
    pub fn degrades(&self) -> Result<()> {
        let since = Instant::now();
        deadline::poll(DEGRADES, "marked answer", || {
            let marked = |sample: &Sample| sample.at >= since && sample.is_marked();
            Ok(self
                .load
                .look(|samples| samples.iter().any(marked))
                .then_some(()))
        })?;
        self.go_on(Duration::from_millis(1200));
        Ok(())
    }

    /// Waits until no answer is marked any more and every breaker is closed.
    pub fn recovers(&mut self) -> Result<()> {
        let since = Instant::now();
        let recovery = deadline::poll(RECOVERS, "recovery", || {
            let well = self.load.look(|samples| {
                let after = samples.iter().filter(|sample| sample.at >= since).rev();
                let last: Vec<&Sample> = after.take(WELL).collect();
                last.len() == WELL && !last.iter().any(|sample| sample.is_marked())
            });
            Ok((well && Story::read(self.gateway)?.open_lanes == 0).then_some(()))
        });
        if let Err(error) = recovery {
            let stalls = self.load.look(Stalls::among);
            stalls.judge(false, || error.to_string())?;
        }
        self.recovered = Some(since.elapsed());
        Ok(())
    }

    /// Ends the load, and holds it to what is promised whatever happens.
    pub fn ends(self, counted: Counted) -> Result<Outcome> {
        let samples = self.load.stop();
        let answered = samples.iter().filter(|sample| sample.status() != 0).count() as u64;
        let mut story = self.before;
        // Who has told of every request has told all. If it never comes to that, what was told is judged.
        let _ = deadline::poll(TOLD, "word of every request", || {
            story = Story::read(self.gateway)?.since(self.before);
            Ok((story.decided >= answered).then_some(()))
        });
        let outcome = Outcome {
            name: self.name,
            story,
            samples,
            recovered: self.recovered,
        };
        outcome.report();
        outcome.is_answered()?;
        outcome.is_bounded(counted)?;
        outcome.is_told(self.unseen)?;
        let log = self.gateway.log();
        ensure!(!log.contains("panicked"), "a VM died:\n{log}");
        outcome.is_in_time()?;
        Ok(outcome)
    }
}

/// Most requests meet a limit that they exhaust, and some meet none at all: these show how late the
/// machine is.
fn mixture(prefix: &str, number: u64) -> (&'static str, String) {
    let round = number / 10;
    match number % 10 {
        0..4 => ("/tight/x", format!("{prefix}-{}", number % TIGHT_CALLERS)),
        4 => ("/wide/x", format!("{prefix}-wide-{}", round % 50)),
        5 => ("/allow/x", format!("{prefix}-allow-{}", round % 50)),
        6 => ("/deny/x", format!("{prefix}-deny-{}", round % 50)),
        _ => ("/plain/x", prefix.to_owned()),
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Admitted {
    pub by_redis: usize,
    pub by_shares: usize,
}

/// When requests that Weir does not even look at were held up.
struct Stalls {
    spans: Vec<(Instant, Instant)>,
    /// How many such requests were asked at all.
    of: usize,
}

/// A claim about time did not hold, on a machine that was too busy to say whose fault it is.
#[derive(Debug)]
pub struct Disturbed(String);

struct Lateness {
    late: usize,
    excused: usize,
    of: usize,
}

trait Marked {
    fn is_marked(&self) -> bool;
    fn is_limited(&self) -> bool;
}

impl Marked for Sample {
    fn is_marked(&self) -> bool {
        self.header(MARK).is_some()
    }

    fn is_limited(&self) -> bool {
        self.path != "/plain/x"
    }
}

impl Outcome {
    /// How many answers were marked.
    pub fn marked(&self) -> usize {
        self.samples
            .iter()
            .filter(|sample| sample.is_marked())
            .count()
    }

    /// How many answers to such requests were marked.
    pub fn marked_where(&self, is: impl Fn(&Sample) -> bool) -> usize {
        let marked = self.samples.iter().filter(|sample| sample.is_marked());
        marked.filter(|sample| is(sample)).count()
    }

    /// Hardly any of these requests is marked, where the machine was not stalled.
    pub fn hardly_notices(&self, is: impl Fn(&Sample) -> bool) -> Result<()> {
        let stalls = self.stalls();
        let such: Vec<&Sample> = self.samples.iter().filter(|sample| is(sample)).collect();
        let marked = such
            .iter()
            .filter(|sample| sample.is_marked() && !stalls.hit(sample));
        let (marked, of) = (marked.count(), such.len());
        stalls.judge(of > 0 && marked * 50 <= of, || {
            format!("{marked} of {of} answers are marked: {:?}", self.story)
        })
    }

    /// All was well again so soon, and no hand was needed.
    pub fn is_back_within(&self, time: Duration) -> Result<()> {
        let recovered = self.recovered.unwrap_or(Duration::MAX);
        self.stalls().judge(recovered <= time, || {
            format!("it took {recovered:.1?} to recover: {:?}", self.story)
        })
    }

    /// The breakers opened, and the statistics tell it.
    pub fn opened(&self) -> Result<()> {
        let Story {
            opened, failures, ..
        } = self.story;
        ensure!(
            opened > 0 && failures > 0 && self.marked() > 0,
            "{:?}",
            self.story
        );
        Ok(())
    }

    fn report(&self) {
        let Lateness { late, excused, of } = self.lateness();
        let slowest = self.samples.iter().map(|sample| sample.took).max();
        eprintln!(
            "{}: late {late} of {of} (and {excused} with the machine), slowest {:.0?}, marked {}, \
             opened {}, recovered {:.1?}, at most {} of {TIGHT} admitted by Redis, {} by shares",
            self.name,
            slowest.unwrap_or_default(),
            self.marked(),
            self.story.opened,
            self.recovered.unwrap_or_default(),
            self.admitted()
                .values()
                .map(|one| one.by_redis)
                .max()
                .unwrap_or(0),
            self.admitted()
                .values()
                .map(|one| one.by_shares)
                .max()
                .unwrap_or(0),
        );
    }

    fn lateness(&self) -> Lateness {
        let stalls = self.stalls();
        let limited = self.samples.iter().filter(|sample| sample.is_limited());
        let late = limited.clone().filter(|sample| sample.took > LATE);
        let (excused, late): (Vec<&Sample>, Vec<_>) = late.partition(|sample| stalls.hit(sample));
        Lateness {
            late: late.len(),
            excused: excused.len(),
            of: limited.count(),
        }
    }

    fn stalls(&self) -> Stalls {
        Stalls::among(&self.samples)
    }

    /// Whoever asks is answered, and with a 5xx only where a limit says so.
    fn is_answered(&self) -> Result<()> {
        for sample in &self.samples {
            let mark = sample.header(MARK);
            let expected = match sample.status() {
                200 => true,
                429 => sample.path == "/tight/x" || sample.path == "/shared/x",
                503 => sample.path == "/deny/x" && mark.as_deref() == Some("deny"),
                _ => false,
            };
            ensure!(expected, "an answer that must not be: {sample:?}");
        }
        Ok(())
    }

    /// One in a thousand may be late, where it is not the whole machine that is.
    fn is_in_time(&self) -> Result<()> {
        let Lateness { late, of, .. } = self.lateness();
        let allowed = of.div_ceil(1000);
        self.stalls().judge(late <= allowed, || {
            format!("{late} of {of} requests were later than {LATE:?}; {allowed} may be")
        })
    }

    fn is_bounded(&self, counted: Counted) -> Result<()> {
        let most = match counted {
            Counted::Throughout => TIGHT,
            Counted::Afresh => 2 * TIGHT,
            Counted::ByReplica => TIGHT + UNREPLICATED,
            Counted::UpTo(limit) => limit,
        };
        let shares = match counted {
            Counted::UpTo(limit) => limit.max(TIGHT),
            Counted::Throughout | Counted::Afresh | Counted::ByReplica => TIGHT,
        };
        for (
            user,
            Admitted {
                by_redis,
                by_shares,
            },
        ) in self.admitted()
        {
            ensure!(
                by_redis <= most && by_shares <= shares,
                "{user} was admitted {by_redis} times by Redis, which may {most} times, and \
                 {by_shares} times by the workers, whose shares are {shares}"
            );
        }
        Ok(())
    }

    /// What each caller of a tight limit was let through.
    pub fn admitted(&self) -> BTreeMap<&str, Admitted> {
        let mut admitted = BTreeMap::<&str, Admitted>::new();
        for sample in &self.samples {
            if sample.path == "/tight/x" && sample.status() == 200 {
                let admitted = admitted.entry(&sample.user).or_default();
                match sample.is_marked() {
                    false => admitted.by_redis += 1,
                    true => admitted.by_shares += 1,
                }
            }
        }
        admitted
    }

    /// The statistics count what clients see.
    fn is_told(&self, unseen: u64) -> Result<()> {
        for (how, told) in [
            ("allow", self.story.allow),
            ("local", self.story.local),
            ("deny", self.story.deny),
        ] {
            let is = |sample: &Sample| sample.header(MARK).as_deref() == Some(how);
            let seen = self.marked_where(is) as u64;
            ensure!(
                (seen..=seen + unseen).contains(&told),
                "weir.degraded_total.how.{how} tells of {told}, clients saw {seen}"
            );
        }
        Ok(())
    }
}

impl Stalls {
    fn among(samples: &[Sample]) -> Self {
        let unlimited = samples.iter().filter(|sample| !sample.is_limited());
        let held_up = unlimited.clone().filter(|sample| sample.took > STALL);
        let span = |sample: &Sample| (sample.at - STALL, sample.at + sample.took + STALL);
        Self {
            spans: held_up.map(span).collect(),
            of: unlimited.count(),
        }
    }

    /// Fails on a claim about time that does not `hold`: for good only where the machine was idle
    /// enough, with one stalled request in a hundred at most.
    fn judge(&self, holds: bool, claim: impl FnOnce() -> String) -> Result<()> {
        match holds {
            true => Ok(()),
            false if self.spans.len() * 100 > self.of => Err(Disturbed(claim()).into()),
            false => bail!(claim()),
        }
    }

    fn hit(&self, sample: &Sample) -> bool {
        let end = sample.at + sample.took;
        self.spans
            .iter()
            .any(|(from, to)| sample.at <= *to && *from <= end)
    }
}

impl Story {
    pub fn read(gateway: &Gateway) -> Result<Self> {
        let stats = gateway
            .admin()
            .get("/stats?filter=wasmcustom")
            .send()?
            .text();
        let sum = |is: &dyn Fn(&str) -> bool| {
            let lines = stats.lines().filter_map(|line| line.split_once(": "));
            let own =
                lines.filter(|(name, _)| name.strip_prefix("wasmcustom.weir.").is_some_and(is));
            own.filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
        };
        let read = |name: &str| sum(&|own| own == name);
        Ok(Self {
            decided: sum(&|name| name.starts_with("decisions_total.")),
            calls: read("store.calls_total"),
            failures: read("store.failures_total"),
            opened: read("breaker.opened_total"),
            open_lanes: read("breaker.open_lanes"),
            allow: read("degraded_total.how.allow"),
            local: read("degraded_total.how.local"),
            deny: read("degraded_total.how.deny"),
        })
    }

    fn since(self, before: Self) -> Self {
        Self {
            decided: self.decided - before.decided,
            calls: self.calls - before.calls,
            failures: self.failures - before.failures,
            opened: self.opened - before.opened,
            open_lanes: self.open_lanes,
            allow: self.allow - before.allow,
            local: self.local - before.local,
            deny: self.deny - before.deny,
        }
    }
}

// === impl Disturbed ===

impl Disturbed {
    pub fn new(claim: &str) -> Self {
        Self(claim.to_owned())
    }
}

impl fmt::Display for Disturbed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Disturbed {}
