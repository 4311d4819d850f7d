//! What many rounds say together: a middle and how far they lie apart.

use serde::{Deserialize, Serialize};

/// The median of some numbers, with the least and the largest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// None of no numbers.
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut numbers: Vec<f64> = numbers.into_iter().collect();
        numbers.sort_by(f64::total_cmp);
        let (&min, &max) = (numbers.first()?, numbers.last()?);
        let middle = numbers.len() / 2;
        let median = if numbers.len() % 2 == 1 {
            numbers[middle]
        } else {
            f64::midpoint(numbers[middle - 1], numbers[middle])
        };
        Some(Self { median, min, max })
    }
}

/// The smallest of `sorted` that at least this share of them does not exceed (nearest rank), with the
/// share in thousandths; 0 of none.
pub fn percentile(sorted: &[u32], thousandths: usize) -> u32 {
    let rank = (sorted.len() * thousandths).div_ceil(1000).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle() {
        let table: [(&[f64], f64, f64, f64); 4] = [
            (&[3.0], 3.0, 3.0, 3.0),
            (&[9.0, 1.0], 5.0, 1.0, 9.0),
            (&[9.0, 1.0, 2.0], 2.0, 1.0, 9.0),
            (&[4.0, 1.0, 100.0, 2.0], 3.0, 1.0, 100.0),
        ];
        for (numbers, median, min, max) in table {
            let spread = Spread { median, min, max };
            assert_eq!(
                Spread::of(numbers.iter().copied()),
                Some(spread),
                "{numbers:?}"
            );
        }
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn a_percentile_is_one_of_the_numbers() {
        let hundred: Vec<u32> = (1..=100).collect();
        let table: [(&[u32], usize, u32); 8] = [
            (&hundred, 500, 50),
            (&hundred, 990, 99),
            (&hundred, 999, 100),
            (&hundred, 1000, 100),
            (&hundred, 0, 1),
            (&[7], 500, 7),
            (&[1, 2], 500, 1),
            (&[], 500, 0),
        ];
        for (sorted, thousandths, value) in table {
            assert_eq!(
                percentile(sorted, thousandths),
                value,
                "{sorted:?} {thousandths}"
            );
        }
    }
}
