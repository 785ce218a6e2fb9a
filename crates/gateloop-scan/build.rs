//! Packs the kernels' PTX: ten megabytes of text, which a program would carry along unread. Each kernel is
//! packed by itself, so that the driver compiles those that are used and no others.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "cuda")]
    kernels::pack();
}

#[cfg(feature = "cuda")]
mod kernels {
    use std::fmt::Write as _;
    use std::path::Path;
    use std::{env, fs};

    /// How a kernel begins, and before what it belongs.
    const ENTRY: &str = "\n.visible .entry ";

    /// Writes `kernels.rs`: the names of all kernels, in order, and where each is packed.
    pub(super) fn pack() {
        let out = env::var("OUT_DIR").expect("cargo names the folder for what a build makes");
        let folder = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo names the package"))
            .join("kernels/ptx");
        println!("cargo:rerun-if-changed={}", folder.display());
        let mut kernels = Vec::new();
        for entry in fs::read_dir(&folder).expect("the PTX is part of the package") {
            let path = entry.expect("the PTX can be listed").path();
            println!("cargo:rerun-if-changed={}", path.display());
            kernels.extend(split(&fs::read_to_string(&path).expect("PTX is text")));
        }
        kernels.sort();
        let mut table = String::from("[\n");
        for (name, ptx) in kernels {
            let packed = miniz_oxide::deflate::compress_to_vec(ptx.as_bytes(), 9);
            let path = Path::new(&out).join(format!("{name}.deflate"));
            fs::write(&path, packed).expect("the build's folder can be written");
            let path = path.display().to_string();
            let _ = writeln!(table, "    ({name:?}, include_bytes!({path:?}) as &[u8]),");
        }
        table.push(']');
        fs::write(Path::new(&out).join("kernels.rs"), table).expect("as above");
    }

    /// Each kernel's name and text: what all have in common, the constants that it names, itself.
    fn split(ptx: &str) -> Vec<(String, String)> {
        let mut parts = ptx.split(ENTRY);
        let head = parts.next().unwrap_or_default();
        let parts: Vec<&str> = parts.collect();
        // Constants lie in the head and between the kernels.
        let is_constant = |line: &&str| line.starts_with(".global ");
        let symbol = |line: &str| {
            let name = line.split(['=', '[', ';']).next().unwrap_or_default();
            name.split_whitespace().last().unwrap_or_default().to_owned()
        };
        let lines = || [head].into_iter().chain(parts.iter().copied()).flat_map(str::lines);
        let constants: Vec<(String, &str)> =
            lines().filter(is_constant).map(|line| (symbol(line), line)).collect();
        let common: String =
            head.lines().filter(|line| !is_constant(line)).flat_map(|line| [line, "\n"]).collect();
        let kernel = |part: &&str| {
            let name = part.split('(').next().unwrap_or_default().trim().to_owned();
            let body: String = part
                .lines()
                .filter(|line| !is_constant(line))
                .flat_map(|line| [line, "\n"])
                .collect();
            let named = constants.iter().filter(|(symbol, _)| body.contains(symbol.as_str()));
            let named: String = named.flat_map(|(_, line)| [line, "\n"]).collect();
            (name, format!("{common}{named}{ENTRY}{body}"))
        };
        parts.iter().map(kernel).collect()
    }
}
