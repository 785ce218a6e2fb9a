//! The monoid that makes the recurrence a scan.

use crate::ScanElement;

/// The map `h -> a h + b`: what a stretch of tokens does to the state that enters it.
///
/// Maps compose associatively, so a sequence can be cut anywhere, each piece reduced to one map,
/// and the maps combined in any grouping: this is what the parallel algorithms use
/// (Blelloch, "Prefix sums and their applications", 1990).
///
/// # The laws
/// On numbers whose sums and products are exact, the laws hold exactly:
/// ```
/// use gateloop_scan::Affine;
///
/// let (f, g, k) = (Affine::new(2.0, 1.0), Affine::new(-0.5, 3.0), Affine::new(4.0, -2.0));
/// let one = Affine::identity();
///
/// assert_eq!(one.then(f), f);                          // left unit
/// assert_eq!(f.then(one), f);                          // right unit
/// assert_eq!(f.then(g).then(k), f.then(g.then(k)));    // associativity
/// assert_eq!(f.then(g).apply(5.0), g.apply(f.apply(5.0)));
/// assert_ne!(f.then(g), g.then(f));                    // the order of time matters
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine<E> {
    /// The decay: what is left of the state that came in.
    pub a: E,
    /// The input: what was added since.
    pub b: E,
}

impl<E: ScanElement> Affine<E> {
    /// The map `h -> a h + b` of one token.
    pub const fn new(a: E, b: E) -> Self {
        Self { a, b }
    }

    /// The map that leaves the state as it is: `(1, 0)`.
    pub const fn identity() -> Self {
        Self { a: E::ONE, b: E::ZERO }
    }

    /// First `self`, then `later`: `(a2 a1, a2 b1 + b2)`.
    pub fn then(self, later: Self) -> Self {
        Self { a: later.a * self.a, b: later.a * self.b + later.b }
    }

    /// The state after this map.
    pub fn apply(self, h: E) -> E {
        self.a * h + self.b
    }
}

impl<E: ScanElement> Default for Affine<E> {
    fn default() -> Self {
        Self::identity()
    }
}
