//! The numerics class of this process. Equal bits are promised among workers of one class.

/// Processor architecture, the vector instructions that arithmetic may be dispatched on, the library's version, and what
/// the program adds, for example `x86_64+avx2+fma+avx512f whimbrel-worker-0.1.0 torch-2.15.0 threads-1`.
pub(crate) fn class(program: &str) -> String {
    let mut class = std::env::consts::ARCH.to_owned();
    for feature in vector_features() {
        class.push('+');
        class.push_str(feature);
    }
    let library = concat!(env!("CARGO_PKG_NAME"), "-", env!("CARGO_PKG_VERSION"));
    format!("{class} {library} {program}").trim_end().to_owned()
}

#[cfg(target_arch = "x86_64")]
fn vector_features() -> Vec<&'static str> {
    let features = [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
    ];
    features.into_iter().filter_map(|(name, there)| there.then_some(name)).collect()
}

#[cfg(target_arch = "aarch64")]
fn vector_features() -> Vec<&'static str> {
    let features = [
        ("neon", std::arch::is_aarch64_feature_detected!("neon")),
        ("sve", std::arch::is_aarch64_feature_detected!("sve")),
    ];
    features.into_iter().filter_map(|(name, there)| there.then_some(name)).collect()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn vector_features() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_class_names_the_processor_the_library_and_what_the_program_adds() {
        let class = super::class("");
        assert!(class.starts_with(std::env::consts::ARCH), "{class}");
        assert!(class.ends_with(concat!(" whimbrel-worker-", env!("CARGO_PKG_VERSION"))), "{class}");
        assert_eq!(super::class("torch-2.15.0 threads-1"), format!("{class} torch-2.15.0 threads-1"));
    }
}
