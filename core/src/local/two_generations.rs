//! A map that stays bounded whatever the number of keys: when it is full, what has not been written
//! for longest is forgotten first. Two generations stand in for an order of use that would have to be
//! kept at every access.

use std::collections::HashMap;

#[derive(Debug)]
pub struct Generations<V> {
    /// Entries of one generation.
    most: usize,
    /// What was written since the generations last changed.
    young: HashMap<Vec<u8>, V>,
    /// What was written before that; writing it again moves it over.
    old: HashMap<Vec<u8>, V>,
}

impl<V> Generations<V> {
    /// Holds at least the `most` entries that were written last, and at most twice as many.
    pub fn new(most: usize) -> Generations<V> {
        Generations {
            most,
            young: HashMap::new(),
            old: HashMap::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }

    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    pub fn get(&self, key: &[u8]) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    pub fn insert(&mut self, key: &[u8], value: V) {
        if let Some(known) = self.young.get_mut(key) {
            *known = value;
            return;
        }
        if self.young.len() >= self.most {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key.to_vec(), value);
    }

    pub fn remove(&mut self, key: &[u8]) {
        self.young.remove(key);
        self.old.remove(key);
    }

    pub fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_keeps_what_is_written_again() {
        let mut map = Generations::new(100);
        for number in 0..1000 {
            map.insert(format!("{number}").as_bytes(), number);
            if number % 50 == 0 {
                map.insert(b"often", number);
            }
            assert!(map.len() <= 200, "{}", map.len());
        }
        assert_eq!(map.get(b"often"), Some(&950));
        assert_eq!(map.get(b"999"), Some(&999));
        assert_eq!(map.get(b"1"), None);
    }

    #[test]
    fn the_last_word_counts_wherever_the_first_is() {
        let mut map = Generations::new(1);
        for (key, value) in [(&b"a"[..], 1), (b"b", 2), (b"a", 3)] {
            map.insert(key, value);
        }
        assert_eq!(map.get(b"a"), Some(&3));
        map.remove(b"a");
        assert_eq!(map.get(b"a"), None);
        map.insert(b"a", 4);
        map.clear();
        assert!(map.is_empty());
    }
}
