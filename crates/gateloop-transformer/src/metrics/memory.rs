//! How long a gate remembers, and how that is counted.
//!
//! A gate of magnitude |a| multiplies what is in the state at every token. Its memory, in tokens, is the sum
//! 1 + |a| + |a|^2 + ... = 1 / (1 - |a|): how many tokens the state is a sum over. It is counted on a logarithmic scale.

/// Bins to a doubling of the memory.
pub const BINS_PER_DOUBLING: usize = 2;

/// Bins in all. Bin k holds the memories from [`lower_edge`]`(k)` to `lower_edge(k + 1)`, but for the last, which holds
/// everything from 2^20 tokens on, a gate that never forgets included.
pub const BINS: usize = 20 * BINS_PER_DOUBLING + 1;

/// The shares of gates below which a quantile of the memory lies, with their names in a record.
pub const QUANTILES: [(&str, f64); 3] = [("p10", 0.1), ("p50", 0.5), ("p90", 0.9)];

/// How the name of a histogram ends.
pub const HISTOGRAM: &str = "log2_memory";

/// The lower edge of a bin, as the logarithm to base 2 of the memory in tokens.
pub fn lower_edge(bin: usize) -> f64 {
    bin as f64 / BINS_PER_DOUBLING as f64
}

/// Layer and quantity of a key `gates/LAYER/QUANTITY`.
pub(crate) fn layer_and_quantity(key: &str) -> Option<(&str, &str)> {
    key.strip_prefix("gates/")?.rsplit_once('/')
}

/// The first bin that is not empty and the one after the last of that kind.
pub(crate) fn filled(counts: &[u64]) -> Option<(usize, usize)> {
    let first = counts.iter().position(|&count| count > 0)?;
    let last = counts.iter().rposition(|&count| count > 0)?;
    Some((first, last + 1))
}
