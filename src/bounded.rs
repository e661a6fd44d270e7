//! A memory of an isolate's that cannot grow, whatever is sent: for what may be forgotten.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// At most so many are remembered.
pub const MOST: usize = 4_096;

/// A map that forgets what came first when it is full.
#[derive(Debug)]
pub struct Bounded<K, V> {
    values: HashMap<K, V>,
    /// The keys in `values`, each once, in the order in which they came.
    order: VecDeque<K>,
}

impl<K, V> Default for Bounded<K, V> {
    fn default() -> Self {
        Self {
            values: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<K: Eq + Hash + Clone, V> Bounded<K, V> {
    /// What is remembered under `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.values.get(key)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.values.get_mut(key)
    }

    /// Remembers `value`; where there is no room, what came first is forgotten.
    pub fn insert(&mut self, key: K, value: V) {
        if self.values.insert(key.clone(), value).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.values.remove(&oldest);
        }
    }

    /// How many are remembered.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        assert_eq!(self.values.len(), self.order.len());
        self.values.len()
    }
}
