//! The programs under test, built as a user builds them.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The folder with `whimbrel`, `char-lm` and the programs of this package. The first call builds them: for tests with the
/// development profile, as the README tells its reader to, and for benchmarks with the release profile.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        // Cargo sets these variables for a test's own package. Dependencies that read them would be built again.
        for (name, _) in env::vars_os() {
            if ["CARGO_PKG_", "CARGO_MANIFEST_"]
                .iter()
                .any(|prefix| name.to_string_lossy().starts_with(prefix))
            {
                build.env_remove(name);
            }
        }
        let (folder, profile) =
            if cfg!(debug_assertions) { ("debug", "dev") } else { ("release", "release") };
        let built = build
            // Of the whole workspace, so that they are built with the features that its tests are built with: once.
            .args(["build", "--workspace", "--profile", profile, "--quiet", "--bins"])
            .current_dir(workspace())
            .status()
            .expect("cargo cannot be run");
        assert!(built.success(), "the programs under test could not be built");
        let target =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
        workspace().join(target).join(folder)
    })
}

/// The `whimbrel` command.
pub fn whimbrel() -> PathBuf {
    folder().join("whimbrel")
}

/// The example trainer.
pub fn char_lm() -> PathBuf {
    folder().join("char-lm")
}

/// A trainer that fails as its settings say.
pub fn faulty_trainer() -> PathBuf {
    folder().join("faulty-trainer")
}
