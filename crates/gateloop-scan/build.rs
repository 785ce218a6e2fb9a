//! Packs the kernels' PTX: ten megabytes of text, which a program would carry along unread.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "cuda")]
    kernels::pack();
}

#[cfg(feature = "cuda")]
mod kernels {
    use std::fmt::Write as _;
    use std::path::{Path, PathBuf};
    use std::{env, fs};

    /// Writes `kernels.rs`: the names of all kernels, in order, and where each is packed.
    pub(super) fn pack() {
        let folder = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("kernels/ptx");
        let out = variable("OUT_DIR");
        // With all that lies in it.
        println!("cargo:rerun-if-changed={}", folder.display());
        let entries = fs::read_dir(&folder).expect("the PTX is part of the package");
        let mut files: Vec<PathBuf> =
            entries.map(|entry| entry.expect("the PTX can be listed").path()).collect();
        files.sort();
        let mut table = String::from("[\n");
        for file in files {
            let name = file.file_stem().unwrap_or_default().to_string_lossy();
            let packed = Path::new(&out).join(format!("{name}.deflate"));
            let ptx = fs::read(&file).expect("the PTX can be read");
            let bytes = miniz_oxide::deflate::compress_to_vec(&ptx, 9);
            fs::write(&packed, bytes).expect("the build's folder can be written");
            let packed = packed.display().to_string();
            let _ = writeln!(table, "    ({name:?}, include_bytes!({packed:?}) as &[u8]),");
        }
        table.push(']');
        fs::write(Path::new(&out).join("kernels.rs"), table).expect("as above");
    }

    fn variable(name: &str) -> String {
        env::var(name).expect("cargo sets it for the script of a package")
    }
}
