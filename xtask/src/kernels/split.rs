//! One file of PTX as one for each kernel: a driver then compiles what is used and nothing else.

use super::files::Texts;

/// How a kernel begins.
const ENTRY: &str = "\n.visible .entry ";

/// Each kernel's text by name: what all have in common, the constants that it names, itself.
///
/// NVRTC puts functions into the kernels that call them. One that it did not would be missing here, and ptxas
/// would say so.
pub(crate) fn by_kernel(ptx: &str) -> Texts {
    let mut parts = ptx.split(ENTRY);
    let head = parts.next().unwrap_or_default();
    let kernels: Vec<&str> = parts.collect();
    // Constants lie before the kernels and between them.
    let constants: Vec<&str> = ptx.lines().filter(is_constant).collect();
    let common = without_constants(head);
    let kernel = |part: &&str| {
        let name = part.split('(').next().unwrap_or_default().trim().to_owned();
        let body = without_constants(part);
        let named = constants.iter().filter(|line| body.contains(symbol(line)));
        let named: String = named.flat_map(|line| [*line, "\n"]).collect();
        (name, format!("{common}{named}{ENTRY}{body}"))
    };
    kernels.iter().map(kernel).collect()
}

fn is_constant(line: &&str) -> bool {
    line.starts_with(".global ")
}

/// The name that `.global .align 4 .u32 NAME = 1;` or `NAME[8];` declares.
fn symbol(constant: &str) -> &str {
    let declared = constant.split(['=', '[', ';']).next().unwrap_or_default();
    declared.split_whitespace().last().unwrap_or_default()
}

fn without_constants(text: &str) -> String {
    text.lines().filter(|line| !is_constant(line)).flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &str = "\
.version 8.4

.global .align 4 .u32 USED = 1;
.global .align 4 .u32 UNUSED = 2;
.extern .shared .align 16 .b8 memory[];

.visible .entry one(
\t.param .u64 one_param_0
)
{
\tld.global.u32 %r1, [USED];
}
\t// .globl\ttwo
.global .align 8 .b8 table[16];

.visible .entry two(
\t.param .u64 two_param_0
)
{
\tmov.u64 %rd1, table;
}
";

    #[test]
    fn a_kernel_has_what_it_needs_and_nothing_else() {
        let kernels = by_kernel(BOTH);
        assert_eq!(kernels.keys().collect::<Vec<_>>(), ["one", "two"]);
        let (one, two) = (&kernels["one"], &kernels["two"]);
        for text in [one, two] {
            assert!(text.starts_with(".version 8.4\n") && text.contains("memory[];"), "{text}");
            assert_eq!(text.matches(".entry ").count(), 1, "{text}");
            assert!(!text.contains("UNUSED"), "{text}");
        }
        assert!(one.contains("USED = 1;") && one.contains("[USED]") && !one.contains("table"));
        assert!(two.contains("table[16];") && two.contains("%rd1") && !two.contains("USED"));
        let before = |text: &str, what| {
            text.find(what).is_some_and(|at| at < text.find(".entry").unwrap_or(0))
        };
        assert!(before(one, "USED = 1;") && before(two, "table[16];"));
    }
}
