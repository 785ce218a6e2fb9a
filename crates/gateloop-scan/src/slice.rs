//! A scan as a slice of a longer one: what it does to the state that enters, and to the gradient that does.

use crate::error::check_len;
use crate::{Scan, ScanElement, ScanError};

impl<E: ScanElement> Scan<'_, E> {
    /// The affine map that the whole scan applies to the state that enters it, `h -> product h + last`: the product of all
    /// decays, zero where a segment starts inside, and the last state from zero. An initial state is not looked at.
    ///
    /// It reads `a` and `b` once and writes no states: with the maps of the slices before, a slice of a sequence that lies
    /// elsewhere knows the state that enters it. The product must not overflow.
    ///
    /// # Shapes
    /// `product`, `last`: `[B, C]`.
    ///
    /// ```
    /// use gateloop_scan::{Scan, ScanShape};
    ///
    /// let (a, b) = ([0.5, 0.25, 0.5], [1.0, 2.0, 3.0]);
    /// let (mut product, mut last) = ([0.0], [0.0]);
    /// Scan::new(ScanShape::new(1, 3, 1)?, &a, &b)?.map_into(&mut product, &mut last)?;
    /// assert_eq!((product, last), ([0.0625], [4.125]));
    /// # Ok::<(), gateloop_scan::ScanError>(())
    /// ```
    pub fn map_into(&self, product: &mut [E], last: &mut [E]) -> Result<(), ScanError> {
        let len = self.shape().state_len();
        check_len("product", "[B, C]", product.len(), len)?;
        check_len("last", "[B, C]", last.len(), len)?;
        // With a state that enters, the first decay counts.
        let zeros = vec![E::ZERO; len];
        E::reduce(&self.with_initial_state(&zeros)?, [product, last]);
        Ok(())
    }

    /// The gradient of the initial state alone, if there was one: what the slice before is told. It reads `a` and `dh` once.
    ///
    /// # Shapes
    /// `dh`: `[B, T, C]`, the gradient of the states; `dh_last`: `[B, C]`, that of the last state besides; `dh0`: `[B, C]`.
    pub fn entry_gradient_into(
        &self,
        dh: &[E],
        dh_last: Option<&[E]>,
        dh0: &mut [E],
    ) -> Result<(), ScanError> {
        let len = self.shape().state_len();
        check_len("dh", "[B, T, C]", dh.len(), self.shape().len())?;
        check_len("dh0", "[B, C]", dh0.len(), len)?;
        if let Some(dh_last) = dh_last {
            check_len("dh_last", "[B, C]", dh_last.len(), len)?;
        }
        let mut factors = vec![E::ZERO; len];
        E::reduce_adjoint(self, dh, [&mut factors, dh0]);
        apply(&factors, dh_last, dh0);
        Ok(())
    }
}

/// `offsets <- factors x + offsets`, where a factor is not zero: nothing goes through a zero.
pub(crate) fn apply<E: ScanElement>(factors: &[E], x: Option<&[E]>, offsets: &mut [E]) {
    let Some(x) = x else { return };
    for ((offset, &factor), &x) in offsets.iter_mut().zip(factors).zip(x) {
        if factor != E::ZERO {
            *offset = factor * x + *offset;
        }
    }
}
