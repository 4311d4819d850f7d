//! Which publication a rollback goes back to. Rollbacks are undos: after one, the next goes further back
//! and not to the mistake that the first took away.

use super::Publication;

/// Why there is nothing to go back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nowhere {
    /// Nothing is published, and nothing was.
    NothingPublished,
    /// This version, whose document is in force, is the first that is known.
    First { version: String },
}

/// The publication before that which is in force, where `history` is what came before `current`, the
/// newest first.
pub fn before<'a>(
    current: Option<&Publication>,
    history: &'a [Publication],
) -> Result<&'a Publication, Nowhere> {
    let Some(current) = current else {
        return history.first().ok_or(Nowhere::NothingPublished);
    };
    let origin = origin(current, history);
    let older = match history.iter().position(|one| one.version == origin) {
        Some(place) => history.get(place + 1..),
        None if origin == current.version => Some(history),
        // What it restored was so long ago that it is not kept.
        None => None,
    };
    let first = Nowhere::First {
        version: origin.to_owned(),
    };
    older.and_then(<[_]>::first).ok_or(first)
}

/// The version that first said what this one says, as far as rollbacks tell.
pub fn origin<'a>(publication: &'a Publication, history: &'a [Publication]) -> &'a str {
    let mut origin = publication;
    // A person may have written the history, even in a circle.
    for _ in 0..=history.len() {
        let restored = history.iter().find(|one| one.version == origin.restores);
        match restored {
            Some(restored) => origin = restored,
            None if origin.restores.is_empty() => break,
            None => return &origin.restores,
        }
    }
    &origin.version
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Publications in the order of time, each with what it restores.
    fn published(all: &[(&str, &str)]) -> (Option<Publication>, Vec<Publication>) {
        let mut all: Vec<Publication> = all
            .iter()
            .map(|(version, restores)| Publication {
                version: (*version).to_owned(),
                restores: (*restores).to_owned(),
                ..Publication::default()
            })
            .collect();
        let current = all.pop();
        all.reverse();
        (current, all)
    }

    #[test]
    fn each_rollback_goes_further_back() {
        let first = |version: &str| {
            Err(Nowhere::First {
                version: version.to_owned(),
            })
        };
        for (all, expected) in [
            (&[][..], Err(Nowhere::NothingPublished)),
            (&[("1", "")], first("1")),
            (&[("1", ""), ("2", "")], Ok("1")),
            (&[("1", ""), ("2", ""), ("3", "")], Ok("2")),
            (&[("1", ""), ("2", ""), ("3", ""), ("4", "2")], Ok("1")),
            (
                &[("1", ""), ("2", ""), ("3", ""), ("4", "2"), ("5", "1")],
                first("1"),
            ),
            // Whatever was pushed since a rollback was pushed on what it restored.
            (
                &[("1", ""), ("2", ""), ("3", ""), ("4", "2"), ("5", "")],
                Ok("4"),
            ),
            (
                &[("1", ""), ("2", ""), ("3", "1"), ("4", ""), ("5", "3")],
                first("1"),
            ),
            (&[("8", ""), ("9", "2")], first("2")),
            (&[("1", "2"), ("2", "1"), ("3", "1")], first("1")),
        ] {
            let (current, history) = published(all);
            let found = before(current.as_ref(), &history).map(|one| one.version.as_str());
            assert_eq!(found, expected, "{all:?}");
        }
    }
}
