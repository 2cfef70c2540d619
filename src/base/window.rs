//! A map from dense, growing numbers to values: entries by queue sequence, deliveries by tag.
//!
//! # Invariants
//! - A page holds at least one value; an emptied page is dropped. So one value kept for ever while millions pass
//!   costs one page.
//! - Iteration is in ascending order.

use std::collections::BTreeMap;

const PAGE: u64 = 64;

/// See the module's text.
#[derive(Debug)]
pub struct Window<T> {
    pages: BTreeMap<u64, Page<T>>,
    len: usize,
}

#[derive(Debug)]
struct Page<T> {
    /// Grows as far as the highest number used.
    slots: Vec<Option<T>>,
    live: u32,
}

impl<T> Default for Window<T> {
    fn default() -> Self {
        Self {
            pages: BTreeMap::new(),
            len: 0,
        }
    }
}

fn split(number: u64) -> (u64, usize) {
    (
        number / PAGE,
        usize::try_from(number % PAGE).expect("a page offset is small"),
    )
}

impl<T> Window<T> {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value under a number.
    pub fn get(&self, number: u64) -> Option<&T> {
        let (page, at) = split(number);
        self.pages.get(&page)?.slots.get(at)?.as_ref()
    }

    /// The value under a number, to change it.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let (page, at) = split(number);
        self.pages.get_mut(&page)?.slots.get_mut(at)?.as_mut()
    }

    /// Puts a value under a number and gives back the one it replaces.
    pub fn insert(&mut self, number: u64, value: T) -> Option<T> {
        let (page, at) = split(number);
        let page = self.pages.entry(page).or_insert_with(|| Page {
            slots: Vec::new(),
            live: 0,
        });
        while page.slots.len() <= at {
            page.slots.push(None);
        }
        let old = page
            .slots
            .get_mut(at)
            .expect("the page was grown to hold it")
            .replace(value);
        if old.is_none() {
            page.live += 1;
            self.len += 1;
        }
        old
    }

    /// Takes the value under a number out.
    pub fn remove(&mut self, number: u64) -> Option<T> {
        let (key, at) = split(number);
        let page = self.pages.get_mut(&key)?;
        let old = page.slots.get_mut(at)?.take()?;
        self.len -= 1;
        page.live -= 1;
        if page.live == 0 {
            self.pages.remove(&key);
        }
        Some(old)
    }

    /// Takes the values of the first page out: a few, never none while there are any.
    pub fn pop_page(&mut self) -> Option<impl Iterator<Item = T> + use<T>> {
        let (_, page) = self.pages.pop_first()?;
        self.len -= page.live as usize;
        Some(page.slots.into_iter().flatten())
    }

    /// All numbers with their values from `from` on, ascending.
    pub fn range_from(&self, from: u64) -> impl Iterator<Item = (u64, &T)> {
        let (first, _) = split(from);
        self.pages
            .range(first..)
            .flat_map(|(key, page)| {
                (key * PAGE..)
                    .zip(&page.slots)
                    .filter_map(|(number, slot)| slot.as_ref().map(|value| (number, value)))
            })
            .skip_while(move |(number, _)| *number < from)
    }

    /// All numbers with their values, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.range_from(0)
    }

    /// The first number at or after `from` that has a value.
    pub fn next_from(&self, from: u64) -> Option<u64> {
        self.range_from(from).next().map(|(number, _)| number)
    }

    /// The lowest number and its value.
    pub fn first(&self) -> Option<(u64, &T)> {
        self.iter().next()
    }

    /// The highest number and its value.
    pub fn last(&self) -> Option<(u64, &T)> {
        let (key, page) = self.pages.last_key_value()?;
        (key * PAGE..)
            .zip(&page.slots)
            .filter_map(|(n, slot)| slot.as_ref().map(|value| (n, value)))
            .last()
    }
}

#[cfg(test)]
mod tests;
