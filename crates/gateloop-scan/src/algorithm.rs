//! Which way to compute a scan.

use core::fmt;
use core::str::FromStr;

use crate::{ScanError, ScanShape};

/// The ways to compute the same function. They differ in speed and rounding only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Algorithm {
    /// The fastest one for the shape. It is [`Algorithm::Chunked`] today, which runs small shapes
    /// on the calling thread.
    #[default]
    Auto,
    /// The loop over time: the ground truth of the tests, on one thread.
    Naive,
    /// Work-efficient associative scan over even and odd tokens, as `jax.lax.associative_scan`.
    ///
    /// It forms products of decays over long stretches. They must be representable, which they
    /// always are for `|a| <= 1`.
    Tree,
    /// Heinsen's log-space scan ([arXiv 2311.06281](https://arxiv.org/abs/2311.06281)), for
    /// decays and inputs of any sign or phase, exact zeros included. Inputs must be finite.
    Heinsen,
    /// Vectorised over channels, streaming through time, on all threads of the current rayon pool.
    Chunked,
}

impl Algorithm {
    /// Every algorithm that can be run, slowest idea first; [`Algorithm::Auto`] is not one.
    pub const CONCRETE: [Self; 4] = [Self::Naive, Self::Tree, Self::Heinsen, Self::Chunked];

    /// The algorithm that runs for `shape`: what [`Algorithm::Auto`] stands for, else itself.
    ///
    /// The choice is logged at debug level.
    #[must_use]
    pub fn resolve(self, shape: ScanShape) -> Self {
        self.resolve_for(&shape)
    }

    /// [`Algorithm::resolve`] of a shape where it lies: one that was just written, three numbers one by one, is slow to be
    /// copied as a whole, which a scan of one token would notice.
    #[inline]
    pub(crate) fn resolve_for(self, shape: &ScanShape) -> Self {
        let resolved = match self {
            Self::Auto => Self::Chunked,
            concrete => concrete,
        };
        tracing::debug!(
            requested = %self,
            algorithm = %resolved,
            batch = shape.batch,
            seqlen = shape.seqlen,
            channels = shape.channels,
            "scan"
        );
        resolved
    }

    /// The name that [`FromStr`] reads.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Naive => "naive",
            Self::Tree => "tree",
            Self::Heinsen => "heinsen",
            Self::Chunked => "chunked",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = ScanError;

    /// Reads a lower-case name, as [`Algorithm::name`] writes it.
    fn from_str(name: &str) -> Result<Self, ScanError> {
        [Self::Auto]
            .into_iter()
            .chain(Self::CONCRETE)
            .find(|algorithm| algorithm.name() == name)
            .ok_or_else(|| ScanError::UnknownAlgorithm { name: name.to_owned() })
    }
}
