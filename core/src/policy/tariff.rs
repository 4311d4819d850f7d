//! What a request costs by what came of it: by its response's header or status, by its gRPC status, or by
//! what another filter noted of it until its stream ended. It knows numbers; where a stream's facts come
//! from is the worker's business.

use std::fmt;
use std::sync::Arc;

use super::cost_rule::{CostRule, Said, digits};
use super::document::{self, GrpcStatus, StatusSet};
use crate::codec::json::{ConfigError, Mistakes, Path};
use crate::quota::cost::Cost;

/// What requests of a rule cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tariff {
    by: Measure,
    /// What one costs of which nothing else is said.
    default: u64,
    /// What one costs that broke off.
    unfinished: u64,
    /// What is held until the cost is known; where it is 0, one permit is taken and given back at once.
    hold: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Measure {
    /// In lower case; never more than the number.
    Header(String, u64),
    /// Single statuses stand before those of a class.
    Status(Vec<(StatusSet, u64)>),
    GrpcStatus(Vec<(GrpcStatus, u64)>),
    /// A namespace and the keys below it; never more than the number.
    Metadata(Vec<String>, u64),
}

/// What is known of a stream that has ended.
pub trait Ending {
    /// Whether its response came to its end, as far as that was the client's to decide.
    fn is_finished(&self) -> bool;
    /// What other filters noted of it.
    fn metadata(&self, path: &[String]) -> Option<Vec<u8>>;
}

impl Tariff {
    /// Of a `cost` that names one thing that tells it, which is no request header.
    pub(super) fn compile(
        told: document::ToldCost,
        at: &Path<'_>,
        mistakes: &mut Mistakes,
    ) -> Option<CostRule> {
        let tariff = Tariff::read(told, at).and_then(|tariff| tariff.check(at));
        let tariff = mistakes.note(tariff)?;
        Some(CostRule::Later(Arc::new(tariff)))
    }

    fn read(told: document::ToldCost, at: &Path<'_>) -> Result<Tariff, ConfigError> {
        let by_list = told.response_status.is_some() || told.grpc_status.is_some();
        let most = match told.max {
            Some(_) if by_list => {
                return Err(at.member("max").error(
                    "is set, but each status has its cost; remove it, or let a header or metadata \
                     tell the cost",
                ));
            }
            None if by_list => u64::MAX,
            _ => document::most(&told, at)?,
        };
        let document::ToldCost {
            response_header,
            response_status,
            grpc_status,
            metadata,
            default,
            unfinished,
            hold,
            ..
        } = told;
        let by = if let Some(header) = response_header {
            Measure::Header(header, most)
        } else if let Some(mut costs) = response_status {
            costs.sort_by_key(|(status, _)| status.is_class());
            Measure::Status(costs)
        } else if let Some(costs) = grpc_status {
            Measure::GrpcStatus(costs)
        } else {
            let path = metadata.into_iter().flatten();
            let path: Vec<String> = path.map(|(_, segment)| segment).collect();
            if path.len() < 2 {
                return Err(at.member("metadata").error(
                    "is too short; write the namespace, then the key: \
                     [\"io.envoy.ai_gateway\", \"llm_total_token\"]",
                ));
            }
            Measure::Metadata(path, most)
        };
        let listed: Box<dyn Iterator<Item = u64>> = match &by {
            Measure::Header(..) | Measure::Metadata(..) => Box::new([most].into_iter()),
            Measure::Status(costs) => Box::new(costs.iter().map(|(_, cost)| *cost)),
            Measure::GrpcStatus(costs) => Box::new(costs.iter().map(|(_, cost)| *cost)),
        };
        let largest = listed.fold(default, u64::max);
        for (field, value) in [("unfinished", unfinished), ("hold", hold)] {
            if let Some(value) = value.filter(|value| *value > largest) {
                let what = match by {
                    Measure::Header(..) | Measure::Metadata(..) => "\"max\"",
                    Measure::Status(_) | Measure::GrpcStatus(_) => "the largest cost",
                };
                return Err(at.member(field).error(format!(
                    "is {value}; expected no more than {what}, which is {largest}"
                )));
            }
        }
        Ok(Tariff {
            by,
            default,
            unfinished: unfinished.unwrap_or(largest),
            hold: hold.unwrap_or(default.max(1)),
        })
    }

    /// What is possible, and means nothing.
    fn check(self, at: &Path<'_>) -> Result<Tariff, ConfigError> {
        let empty = match &self.by {
            Measure::Status(costs) if costs.is_empty() => Some(("response_status", "401")),
            Measure::GrpcStatus(costs) if costs.is_empty() => {
                Some(("grpc_status", "UNAUTHENTICATED"))
            }
            _ => None,
        };
        if let Some((field, example)) = empty {
            return Err(at.member(field).error(format!(
                "is empty; write what a status costs, such as {{{example:?}: 1}}"
            )));
        }
        let is_free = match &self.by {
            Measure::Header(..) | Measure::Metadata(..) => false,
            Measure::Status(costs) => costs.iter().all(|(_, cost)| *cost == 0),
            Measure::GrpcStatus(costs) => costs.iter().all(|(_, cost)| *cost == 0),
        };
        if is_free && self.default == 0 {
            return Err(at.error(
                "is 0 whatever comes of a request, and what costs nothing needs no limit; give a \
                 status or the \"default\" a cost",
            ));
        }
        Ok(self)
    }

    /// What is taken before anything is known: one permit at least, so that whoever has none left is
    /// refused.
    pub fn taken(&self) -> Cost {
        Cost::try_new(self.hold).unwrap_or(Cost::ONE)
    }

    /// What of it stays taken until the cost is known.
    pub fn held(&self) -> u64 {
        self.hold
    }

    pub fn unfinished(&self) -> u64 {
        self.unfinished
    }

    /// What a request costs by the headers of its response; nothing where that is known later.
    pub fn at_response<'a>(
        &self,
        headers: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    ) -> Option<u64> {
        let told = match &self.by {
            // What is unreadable is as if it were not there: the client cannot help it.
            Measure::Header(name, most) => {
                let told = Said::under(name, headers).number(*most);
                told.unwrap_or_default()
            }
            Measure::Status(costs) => {
                let status = whole(Said::under(":status", headers));
                let cost = costs
                    .iter()
                    .find(|(own, _)| Some(true) == status.map(|s| own.has(s)));
                cost.map(|(_, cost)| *cost)
            }
            // It may stand in the trailers.
            Measure::GrpcStatus(costs) => match Said::under("grpc-status", headers) {
                Said::Nothing => return None,
                said => of_grpc(costs, whole(said)),
            },
            Measure::Metadata(..) => return None,
        };
        Some(told.unwrap_or(self.default))
    }

    /// Whether a response with these headers tells what its request costs.
    pub fn is_told_by<'a>(&self, headers: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> bool {
        let header = match &self.by {
            Measure::Header(name, _) => name.as_str(),
            Measure::Status(_) => ":status",
            Measure::GrpcStatus(_) => "grpc-status",
            Measure::Metadata(..) => return false,
        };
        Said::under(header, headers) != Said::Nothing
    }

    /// What a request costs whose stream has ended, if its response did not tell.
    pub fn at_end(&self, ending: &impl Ending) -> u64 {
        let told = match &self.by {
            Measure::Metadata(path, most) => {
                let noted = ending.metadata(path);
                noted
                    .and_then(|noted| number(&noted))
                    .map(|cost| cost.min(*most))
            }
            Measure::Header(..) | Measure::Status(_) | Measure::GrpcStatus(_) => None,
        };
        told.unwrap_or_else(|| match ending.is_finished() {
            true => self.default,
            false => self.unfinished,
        })
    }

    /// What a request costs of which nothing more will be known.
    pub fn without_more(&self) -> u64 {
        self.default
    }

    /// The most that one request may be charged.
    pub fn most(&self) -> u64 {
        let own = match &self.by {
            Measure::Header(_, most) | Measure::Metadata(_, most) => *most,
            Measure::Status(costs) => costs.iter().map(|(_, cost)| *cost).max().unwrap_or(0),
            Measure::GrpcStatus(costs) => costs.iter().map(|(_, cost)| *cost).max().unwrap_or(0),
        };
        own.max(self.default).max(self.unfinished)
    }
}

fn of_grpc(costs: &[(GrpcStatus, u64)], status: Option<u64>) -> Option<u64> {
    let cost = costs
        .iter()
        .find(|(own, _)| Some(u64::from(own.0)) == status);
    cost.map(|(_, cost)| *cost)
}

fn whole(said: Said<'_>) -> Option<u64> {
    said.number(u64::MAX).ok().flatten()
}

/// A number as Envoy hands out what filters note: digits, or a double. No double that says what something
/// costs is text for bytes: whole numbers below 2⁴⁴ hold one that is NUL.
fn number(noted: &[u8]) -> Option<u64> {
    let is_text = noted.iter().all(|byte| matches!(byte, b' '..=b'~'));
    digits(noted).or_else(|| {
        if is_text {
            return None;
        }
        let double = f64::from_le_bytes(noted.try_into().ok()?);
        // A cast ends at the largest number.
        (double.is_finite() && double >= 0.0).then(|| double.ceil() as u64)
    })
}

/// As the log tells it of a rule.
impl fmt::Display for Tariff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.by {
            Measure::Header(header, _) => write!(f, "response header {header}")?,
            Measure::Status(costs) => {
                write!(f, "status")?;
                costs
                    .iter()
                    .try_for_each(|(status, cost)| write!(f, " {status}={cost}"))?;
            }
            Measure::GrpcStatus(costs) => {
                write!(f, "grpc status")?;
                costs
                    .iter()
                    .try_for_each(|(status, cost)| write!(f, " {status}={cost}"))?;
            }
            Measure::Metadata(path, _) => write!(f, "metadata {}", path.join(" "))?,
        }
        write!(f, " default {}", self.default)?;
        if let Measure::Header(_, most) | Measure::Metadata(_, most) = &self.by {
            write!(f, " max {most}")?;
        }
        if self.unfinished != self.most() {
            write!(f, " unfinished {}", self.unfinished)?;
        }
        match self.hold == self.default.max(1) {
            true => Ok(()),
            false => write!(f, " hold {}", self.hold),
        }
    }
}

#[cfg(test)]
mod tests;
