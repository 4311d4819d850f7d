//! Serial traffic over every rule and tier of the reference policy, held against the model.

use weir_lab::client::Answer;

use crate::model::{Account, Moment, Standing};
use crate::visitor::{Visitor, number, tells_limits};
use crate::world::World;
use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    an_anonymous_caller_is_held_to_every_rule,
    a_free_user_is_held_to_every_rule,
    a_premium_user_is_held_to_every_rule,
    an_enterprise_user_is_held_to_every_rule,
    a_user_of_no_listed_tier_is_held_to_the_default,
];

const PATHS: [&str; 4] = [
    "/api/v1/auth/login",
    "/api/v1/media/upload",
    "/api/v1/search",
    "/api/v1/items/7",
];
/// Enough to see that a refusal stays one.
const REFUSALS: usize = 6;
/// More than any rule lets one address pass.
const MOST_REQUESTS: usize = 230;

fn an_anonymous_caller_is_held_to_every_rule(world: &World) {
    hold_to_every_rule(world, "anonymous");
}

fn a_free_user_is_held_to_every_rule(world: &World) {
    hold_to_every_rule(world, "free");
}

fn a_premium_user_is_held_to_every_rule(world: &World) {
    hold_to_every_rule(world, "premium");
}

fn an_enterprise_user_is_held_to_every_rule(world: &World) {
    hold_to_every_rule(world, "enterprise");
}

fn a_user_of_no_listed_tier_is_held_to_the_default(world: &World) {
    hold_to_every_rule(world, "unlisted");
}

/// One caller for each path, who asks for it mostly, and for the others now and then.
fn hold_to_every_rule(world: &World, tier: &str) {
    let gateway = world.reference();
    for (seed, focus) in PATHS.iter().enumerate() {
        let visitor = match tier {
            "anonymous" => Visitor::anonymous(gateway),
            tier => Visitor::of_tier(gateway, tier),
        };
        let mut account = Account::default();
        let mut random = Random(seed as u64 + 1);
        let mut refusals = 0;
        for request in 0..MOST_REQUESTS {
            let path = if random.below(12) == 0 {
                PATHS[random.below(4)]
            } else {
                focus
            };
            let (at, answer) = Moment::of(|| visitor.get(path));
            let standings = account.standings(tier, path, at);
            hold(&answer, &standings).unwrap_or_else(|difference| {
                panic!("request {request}, {path}: {difference}\n{answer:?}\n{standings:#?}")
            });
            if answer.status == 200 {
                account.take(&standings, at);
            } else if path == *focus {
                refusals += 1;
            }
            if refusals == REFUSALS {
                break;
            }
        }
        assert_eq!(refusals, REFUSALS, "{tier} {focus}: nothing was refused");
    }
}

/// Whether an answer is one that the limits, standing so, can have given.
fn hold(answer: &Answer, standings: &[Standing]) -> Result<(), String> {
    let must_refuse = standings.iter().any(|standing| *standing.room.end() == 0);
    let must_pass = standings.iter().all(|standing| *standing.room.start() > 0);
    match answer.status {
        200 if must_refuse => Err("passed, and should not have".to_owned()),
        429 if must_pass => Err("refused, and should not have been".to_owned()),
        200 if standings.is_empty() => {
            let told = tells_limits(answer);
            if told {
                Err("has no limits, but was told some".to_owned())
            } else {
                Ok(())
            }
        }
        200 => hold_passed(answer, standings),
        429 => hold_refused(answer, standings),
        other => Err(format!("answered {other}")),
    }
}

/// The limit shown is the one with the fewest requests left, the first of equals.
fn hold_passed(answer: &Answer, standings: &[Standing]) -> Result<(), String> {
    let limit = number(answer, "x-ratelimit-limit");
    let remaining = number(answer, "x-ratelimit-remaining");
    let could_be_shown = standings.iter().enumerate().any(|(place, shown)| {
        let tightest = standings.iter().enumerate().all(|(other_place, other)| {
            let (least, most) = (*shown.room.start(), *other.room.end());
            if other_place < place {
                most > least
            } else {
                most >= least
            }
        });
        // The room was that before this request.
        tightest && shown.quota.limit == limit && shown.room.contains(&(remaining + 1))
    });
    if could_be_shown {
        Ok(())
    } else {
        Err("shows another limit than the tightest".to_owned())
    }
}

/// The limit reported is the first that has no room.
fn hold_refused(answer: &Answer, standings: &[Standing]) -> Result<(), String> {
    let body = answer.json().unwrap();
    let details = &body["details"];
    let reported = standings.iter().position(|standing| {
        details["rule"] == standing.rule
            && details["scope"] == standing.scope
            && details["algorithm"] == standing.quota.algorithm.name()
            && details["limit"] == standing.quota.limit
            && details["window"] == standing.quota.window_seconds
            && details["remaining"] == 0
    });
    let Some(reported) = reported else {
        return Err("reports no limit of this request".to_owned());
    };
    let could_fail = *standings[reported].room.start() == 0;
    let others_could_pass = standings[..reported]
        .iter()
        .all(|other| *other.room.end() > 0);
    if could_fail && others_could_pass {
        Ok(())
    } else {
        Err("reports another limit than the first that failed".to_owned())
    }
}

/// Numbers that look drawn, the same every time (Knuth's MMIX generator).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}
