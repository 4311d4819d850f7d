//! Counts over time, in as many steps as a picture shows, however long the log is.

use serde::Serialize;

/// A picture has no more points across.
const MOST_STEPS: usize = 480;

/// Equal steps of whole seconds, each with a count for each column.
#[derive(Clone, Debug, Serialize)]
pub struct Series {
    /// Of the first step, ms since the Unix epoch.
    pub from_ms: u64,
    pub step_seconds: u64,
    /// The requests, and then what else is counted.
    pub columns: Vec<String>,
    pub steps: Vec<Vec<u64>>,
}

impl Series {
    pub fn of(columns: Vec<String>) -> Series {
        Series {
            from_ms: 0,
            step_seconds: 1,
            columns,
            steps: Vec::new(),
        }
    }

    /// Where a moment is counted; moments never go back.
    pub fn at(&mut self, micros: u64) -> &mut Vec<u64> {
        let second = micros / 1_000_000;
        if self.steps.is_empty() {
            self.from_ms = second * 1000;
        }
        let from = self.from_ms / 1000;
        let since = second.saturating_sub(from);
        while since / self.step_seconds >= MOST_STEPS as u64 {
            self.halve();
        }
        let place = (since / self.step_seconds) as usize;
        while self.steps.len() <= place {
            self.steps.push(vec![0; self.columns.len()]);
        }
        &mut self.steps[place]
    }

    fn halve(&mut self) {
        self.step_seconds *= 2;
        let pairs = self.steps.chunks(2);
        let summed = pairs.map(|pair| match pair {
            [one, other] => one
                .iter()
                .zip(other)
                .map(|(one, other)| one + other)
                .collect(),
            rest => rest.concat(),
        });
        self.steps = summed.collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_however_long_it_takes() {
        let mut series = Series::of(vec!["requests".to_owned()]);
        let mut second = 1_795_737_600;
        for number in 0..5_000 {
            series.at(second * 1_000_000 + 5)[0] += 1;
            second += number % 97;
        }
        let all: u64 = series.steps.iter().map(|step| step[0]).sum();
        assert_eq!((all, series.from_ms), (5_000, 1_795_737_600_000));
        assert!(series.steps.len() <= MOST_STEPS && series.steps.len() > MOST_STEPS / 2);
    }
}
