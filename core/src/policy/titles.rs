//! What clients are told a limit is called: by its rule, its scope and whom it is for, such as
//! `auth_api.user.free`, and by its name (`auth_api.user.free.daily`). Of several in one list each without a
//! name has its window besides (`auth_api.user.free.60s`), and a title that would stand twice is numbered: an
//! experiment's variant then does not tell its name.

use std::collections::{HashMap, HashSet};

use super::compiled::Limit;

/// The title of each limit.
pub(super) fn of(limits: &[Limit]) -> Vec<String> {
    // A variant's limits stand in the place of the rule's, not beside them.
    let list = |limit: &Limit| (whose(limit), limit.variant.clone());
    let mut lists = HashMap::new();
    for limit in limits {
        *lists.entry(list(limit)).or_insert(0) += 1;
    }
    let mut given = HashSet::new();
    // From which number on a title may be free.
    let mut numbers: HashMap<String, u64> = HashMap::new();
    let title = |limit: &Limit| {
        let mut title = whose(limit);
        if let Some(name) = &limit.name {
            title = format!("{title}.{name}");
        } else if lists.get(&list(limit)).is_some_and(|length| *length > 1) {
            title = format!("{title}.{}", limit.terms.quota.period());
        }
        if given.insert(title.clone()) {
            return title;
        }
        let next = numbers.entry(title.clone()).or_insert(2);
        loop {
            let numbered = format!("{title}.{next}");
            *next += 1;
            if given.insert(numbered.clone()) {
                return numbered;
            }
        }
    };
    limits.iter().map(title).collect()
}

fn whose(limit: &Limit) -> String {
    let scope = limit.scope.name();
    match limit.label.as_str() {
        "" => format!("{}.{scope}", limit.rule),
        label => format!("{}.{scope}.{label}", limit.rule),
    }
}

#[cfg(test)]
mod tests;
