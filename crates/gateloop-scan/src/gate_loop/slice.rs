//! A fused operator as a slice of a longer sequence.

use crate::chunked::plan::Plan;
use crate::chunked::request::is_streamed;
use crate::chunked::summary::summarize;
use crate::error::check_len;
use crate::slice::apply;
use crate::{ScanElement, ScanError};

use super::Rows;
use super::kind::Kind;
use super::operator::Operator;
use super::summary::{Back, Forth};

impl<K: Kind> Operator<'_, K> {
    /// The affine map that the operator applies to the state that enters it, as
    /// [`Scan::map_into`](crate::Scan::map_into): it reads the input and `z`, and neither `q` nor an initial state.
    ///
    /// # Shapes
    /// `product`, `last`: `[B, C]`.
    pub fn map_into(
        &self,
        product: &mut [K::State],
        last: &mut [K::State],
    ) -> Result<(), ScanError> {
        check_len("product", "[B, C]", product.len(), self.shape().state_len())?;
        check_len("last", "[B, C]", last.len(), self.shape().state_len())?;
        let plan = self.reading_plan();
        summarize(&Forth { operator: self }, &plan, self.threads, [product, last]);
        Ok(())
    }

    /// That of a whole run: what is read is as large.
    fn reading_plan(&self) -> Plan {
        self.plan(is_streamed::<K::Real>(self.shape()))
    }

    /// The gradient of the initial state alone, if there was one, as
    /// [`Scan::entry_gradient_into`](crate::Scan::entry_gradient_into): it reads `q`, `z` and `dy`, and needs no states.
    ///
    /// # Shapes
    /// `dy`: `[B, T, C]`; `dh_last`, `dh0`: `[B, C]`.
    pub fn entry_gradient_into(
        &self,
        dy: Rows<'_, K::Real>,
        dh_last: Option<&[K::State]>,
        dh0: &mut [K::State],
    ) -> Result<(), ScanError> {
        let len = self.shape().state_len();
        dy.check("dy", self.shape(), 1)?;
        check_len("dh0", "[B, C]", dh0.len(), len)?;
        if let Some(dh_last) = dh_last {
            check_len("dh_last", "[B, C]", dh_last.len(), len)?;
        }
        let mut factors = vec![K::State::ZERO; len];
        let pass = Back { operator: self, dy };
        summarize(&pass, &self.reading_plan(), self.threads, [&mut factors, dh0]);
        apply(&factors, dh_last, dh0);
        Ok(())
    }
}
