//! `weirctl recommend`: which limits fit yesterday's requests?

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::simulate::Replay;
use crate::console::{Console, Output};
use crate::exit::Exit;
use crate::recommend::{Group, Ranks, callers, rule_name};
use crate::simulate::{Curves, Named};
use crate::suite;

/// Write a policy in shadow mode that fits what access logs hold, with the reasons
///
/// Limits are by caller, for each group of paths and tier that enough callers asked for: what 99.9 % of them
/// ask for at most, and some room. What it would have refused is simulated with the code that decides in
/// Envoy. The policy is YAML on the output.
#[derive(Args)]
pub struct Recommend {
    /// Access logs; they are read twice
    #[arg(required = true, value_name = "LOG")]
    logs: Vec<PathBuf>,
    /// How many times what 99.9 % of the callers ask for at most a limit is
    #[arg(long, default_value_t = 1.5)]
    headroom: f64,
    /// How many parts of a path make a group
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=8))]
    depth: u8,
    #[command(flatten)]
    replay: Replay,
}

#[derive(Serialize)]
struct Told {
    policy: Value,
    groups: Vec<Group>,
    /// Requests in no group: their paths begin with an id, or with what no pattern says.
    elsewhere: u64,
}

impl Recommend {
    pub fn run(self, console: &mut Console) -> Result<Exit> {
        ensure!(
            (1.0..=100.0).contains(&self.headroom),
            "--headroom {}: expected 1 to 100",
            self.headroom
        );
        let is_input = |log: &PathBuf| log == Path::new("-");
        ensure!(
            !self.logs.iter().any(is_input),
            "the logs are read twice, so the input cannot be one; write it to a file"
        );
        let usage = self.replay.usage(&self.logs, usize::from(self.depth))?;
        let mut groups = usage.groups(self.headroom);
        let policy = usage.policy(&groups);
        let is_any = groups.iter().any(|group| group.advice.is_some());
        if is_any {
            self.judge(&policy, &mut groups)?;
        }
        match console.output {
            Output::Json => console.json(
                "weirctl.recommendation/1",
                &Told {
                    policy,
                    groups,
                    elsewhere: usage.elsewhere,
                },
            )?,
            Output::Table => {
                match is_any {
                    true => yaml(console, &policy, &groups)?,
                    false => console.note("nothing can be said of any group of paths"),
                }
                for group in groups
                    .iter()
                    .filter(|group| group.advice.is_none())
                    .take(20)
                {
                    let why = group.too_little();
                    console.note(&format!(
                        "nothing said of {} for tier {}: {}",
                        group.prefix,
                        group.tier,
                        why.as_deref().unwrap_or(
                            "its paths are too mixed, or its tier is no name that a policy may hold"
                        )
                    ));
                }
                if usage.elsewhere > 0 {
                    console.note(&format!(
                        "{} requests are in no group: nobody is known to have called, or their paths begin \
                         with an id or with what no pattern says",
                        usage.elsewhere
                    ));
                }
            }
        }
        Ok(if is_any { Exit::Done } else { Exit::No })
    }

    /// Fills in what the policy would have refused.
    fn judge(&self, policy: &Value, groups: &mut [Group]) -> Result<()> {
        let named = Named {
            name: "what is recommended".to_owned(),
            policy: suite::policy(policy.to_string().as_bytes())?,
        };
        let report = self
            .replay
            .run(&self.logs, named, None, None, Curves::Left)?;
        for group in groups {
            let name = rule_name(&group.prefix);
            let mut limits = report.limits.iter();
            let limit = limits.find(|limit| limit.rule == name && limit.whom == group.tier);
            if let (Some(advice), Some(limit)) = (&mut group.advice, limit) {
                advice.refused = limit.refused;
                advice.callers_hit = limit.callers_hit;
                let worst = limit.worst.as_ref();
                let worst = worst.filter(|worst| worst.refused > 0);
                advice.worst = worst.map(|worst| format!("{} {}", worst.caller, worst.refused));
            }
        }
        Ok(())
    }
}

fn yaml(console: &mut Console, policy: &Value, groups: &[Group]) -> Result<()> {
    let rules = policy["rules"].as_array();
    writeln!(
        console,
        "# On trial: it counts and refuses nobody. Push it, wait, and enforce what holds."
    )?;
    writeln!(console, "rules:")?;
    for rule in rules.into_iter().flatten() {
        writeln!(console, "- name: {}", rule["name"])?;
        writeln!(console, "  patterns: {}", rule["patterns"])?;
        if !rule["except"].is_null() {
            writeln!(console, "  except: {}", rule["except"])?;
        }
        writeln!(console, "  mode: shadow\n  user_limits:")?;
        let own = |group: &&Group| rule["name"] == rule_name(&group.prefix);
        for group in groups.iter().filter(own) {
            let Some(advice) = &group.advice else {
                continue;
            };
            let ranks = |ranks: Ranks| format!("{}, {}, {}", ranks.p50, ranks.p95, ranks.p999);
            writeln!(console, "    # {}: {}", advice.traffic, advice.why)?;
            writeln!(
                console,
                "    # {} requests of {} callers; p50, p95, p99.9 of their most in 10 s: {}; in a minute: {}; in \
                 an hour: {}",
                group.requests,
                group.callers,
                ranks(group.in_10s),
                ranks(group.in_minute),
                ranks(group.in_hour),
            )?;
            // Whoever is named chose the name: no line of it may end the comment.
            let worst = advice.worst.as_ref();
            let worst = worst.map_or_else(String::new, |worst| format!(", most of all {worst:?}"));
            writeln!(
                console,
                "    # would have refused {} requests of {}{worst}",
                advice.refused,
                callers(advice.callers_hit)
            )?;
            writeln!(
                console,
                "    {}: {}",
                Value::from(group.tier.as_str()),
                advice.limit
            )?;
        }
    }
    Ok(())
}
