//! Layers, training steps, generation.

use super::{Group, Side, Work};

pub(crate) const LAYER_FORWARD: &str = "layer/forward/65536";
pub(crate) const LAYER_GRADIENT: [&str; 2] = ["layer/gradient/65536", "layer/gradient/16384"];
pub(crate) const MAX_HEADS: &str = "train/max-heads";
pub(crate) const EIGHT_HEADS: &str = "train/8-heads";
pub(crate) const GROWTH: [usize; 5] = [256, 1024, 4096, 16384, 65536];
pub(crate) const PROMPTS: [usize; 4] = [128, 512, 4096, 65536];

/// How weights are kept in generation, and the longest prompt that this is measured after.
const WEIGHTS: [(&str, usize); 3] = [("f32", 65536), ("bf16", 128), ("int8", 128)];

pub(super) fn layers() -> Vec<Work> {
    let sides = [Side::OURS, Side::PRODUCT, Side::REFERENCE];
    let layer = |name: &str| Work::time(Group::Layer, name, &sides);
    vec![layer(LAYER_FORWARD), layer(LAYER_GRADIENT[0]), layer(LAYER_GRADIENT[1]).quick()]
}

pub(super) fn training() -> Vec<Work> {
    let max_heads = [Side::OURS, Side::PRODUCT, Side::REFERENCE, Side::REFERENCE_CHECKPOINTED];
    // Without recomputing, the reference's step at eight heads needs more memory than most machines have.
    let eight_heads = [Side::OURS, Side::PRODUCT, Side::REFERENCE_CHECKPOINTED];
    vec![
        Work::time(Group::Training, MAX_HEADS, &max_heads).quick(),
        Work::time(Group::Training, EIGHT_HEADS, &eight_heads),
    ]
}

pub(super) fn memory() -> Vec<Work> {
    let max_heads = [Side::OURS, Side::REFERENCE, Side::REFERENCE_CHECKPOINTED];
    let eight_heads = [Side::OURS, Side::REFERENCE_CHECKPOINTED];
    vec![
        Work::memory(Group::Memory, MAX_HEADS, &max_heads),
        Work::memory(Group::Memory, EIGHT_HEADS, &eight_heads),
    ]
}

/// Time and memory of a step on one sequence; the time of one token is what no length adds to.
pub(super) fn growth() -> Vec<Work> {
    let time = std::iter::once(1)
        .chain(GROWTH)
        .map(|t| Work::time(Group::Growth, by_tokens(t), &[Side::OURS]).beside("growth"));
    let memory = GROWTH.map(|t| Work::memory(Group::Growth, &by_tokens(t), &[Side::OURS]));
    time.chain(memory).collect()
}

pub(crate) fn by_tokens(tokens: usize) -> String {
    format!("growth/{tokens}")
}

pub(super) fn generation() -> Vec<Work> {
    let sides = [Side::OURS, Side::READ];
    let mut works = Vec::new();
    for (weights, longest) in WEIGHTS {
        for prompt in PROMPTS.into_iter().filter(|&prompt| prompt <= longest) {
            let reference = (prompt == 512 && weights == "f32").then_some(Side::REFERENCE);
            let sides: Vec<Side> = sides.into_iter().chain(reference).collect();
            let work =
                Work::time(Group::Generation, one_text(weights, prompt), &sides).beside(weights);
            works.push(if prompt <= 512 && weights == "f32" { work.quick() } else { work });
        }
        let many = Work::time(Group::Generation, many_texts(weights), &sides).beside(weights);
        works.push(if weights == "f32" { many.quick() } else { many });
    }
    works
}

pub(crate) fn one_text(weights: &str, prompt: usize) -> String {
    format!("generate/{weights}/b1/p{prompt}")
}

pub(crate) fn many_texts(weights: &str) -> String {
    format!("generate/{weights}/b64/p128")
}
