//! Arrays as tensor libraries allocate them.

use std::ops::{Deref, DerefMut};

/// An array that begins on a cache line, like the arrays of libtorch and those whose bandwidth is the limit.
pub(crate) struct Aligned<E> {
    data: Vec<E>,
    lead: usize,
}

const LINE: usize = 64;

impl<E: Copy> From<Vec<E>> for Aligned<E> {
    fn from(values: Vec<E>) -> Self {
        let Some(&first) = values.first() else { return Self { data: values, lead: 0 } };
        let spare = LINE / size_of::<E>();
        let mut data: Vec<E> = Vec::with_capacity(values.len() + spare);
        let beyond = data.as_ptr().addr().wrapping_neg() % LINE;
        let lead = beyond / size_of::<E>();
        data.resize(lead, first);
        data.extend(values);
        Self { data, lead }
    }
}

impl<E> Deref for Aligned<E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        &self.data[self.lead..]
    }
}

impl<E> DerefMut for Aligned<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        &mut self.data[self.lead..]
    }
}
