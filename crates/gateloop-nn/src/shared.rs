//! Parameters that several threads may read at once.
//!
//! libtorch allows that of its tensors; tch has handles that may be sent to other threads but no references that may be
//! shared. A layer must be shared to be computed again in the backward pass, which libtorch runs on threads of its own.

use crate::linear::Linear;
use crate::norm::{LayerNorm, RmsNorm};
use crate::segments::Segments;

// SAFETY: these types only read their tensors through shared references. Whoever writes to a parameter through another
// handle to it has to take care that nobody reads it, as with tch's own handles, which may be sent to any thread.
unsafe impl Sync for Linear {}
// SAFETY: as above.
unsafe impl Sync for RmsNorm {}
// SAFETY: as above.
unsafe impl Sync for LayerNorm {}
// SAFETY: as above.
unsafe impl Sync for Segments {}
// SAFETY: as above.
unsafe impl Sync for crate::attention::Rotary {}
