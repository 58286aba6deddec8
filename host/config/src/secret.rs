//! Secrets: from a variable of the environment or from a file, never from the config itself.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use amends_sandbox::Secret;

use crate::table::{Context, Item};

/// A secret is at most this many bytes: a key or a certificate, not a data set.
const SECRET_BYTES_MAX: u64 = 64 << 10;

const SECRET_HELP: &str = "write { env = \"NAME\" } or { file = \"path\" }: a secret is never \
                           written into the config itself";

/// Reads a secret; none when it was reported.
pub(super) fn read_secret(item: &Item<'_>, context: &mut Context<'_>) -> Option<Secret> {
    let mut table = item.table(context, SECRET_HELP)?;
    let variable = table.take("env", context);
    let file = table.take("file", context);
    let is_clean = table.finish(context);
    match (variable, file) {
        (Some(variable), None) => secret_of_variable(&variable, context),
        (None, Some(file)) => secret_of_file(&file, context),
        (Some(_), Some(_)) => {
            item.error(context, "a secret comes from one place, and two are named", SECRET_HELP);
            None
        }
        (None, None) => {
            // A misspelt key was reported with what would be right.
            if is_clean {
                item.error(context, "nothing says where the secret is", SECRET_HELP);
            }
            None
        }
    }
}

fn secret_of_variable(item: &Item<'_>, context: &mut Context<'_>) -> Option<Secret> {
    let name = item.text(context, "\"INVENTORY_API_KEY\"")?;
    match context.environment.get(name) {
        Some(value) if !value.is_empty() => Some(Secret::new(value.to_owned())),
        set => {
            let (state, names) = match set {
                Some(_) => ("empty", None),
                None => ("not set", Some(context.environment.names())),
            };
            let help = context.did_you_mean(name, names.into_iter().flatten(), || {
                format!("set {name} before the host starts, or remove the secret")
            });
            let message = format!("the environment variable `{name}` is {state}");
            context.lacks_secret(item, message, help);
            None
        }
    }
}

fn secret_of_file(item: &Item<'_>, context: &mut Context<'_>) -> Option<Secret> {
    let text = item.text(context, "\"/run/secrets/api-key\"")?;
    let path = context.source.resolve(text);
    let shown = path.display();
    if matches!(std::fs::metadata(&path), Err(error) if error.kind() == std::io::ErrorKind::NotFound)
    {
        let help = "put the secret there, readable by the host; a relative path counts from the \
                    config's folder";
        context.lacks_secret(item, format!("there is no file {shown}"), help);
        return None;
    }
    let read = match std::fs::metadata(&path) {
        Ok(metadata) if metadata.is_dir() => Err(format!("{shown} is a folder")),
        // A pipe or a device may have no end.
        Ok(metadata) if !metadata.is_file() => Err(format!("{shown} is not a file")),
        Ok(_) => read_secret_file(&path),
        Err(error) => Err(format!("the file {shown} cannot be read: {error}")),
    };
    // Editors end a file with a newline; no key does.
    let read = read.map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
    match read {
        Ok(secret) if secret.is_empty() => {
            let message = format!("the file {shown} is empty");
            item.error(context, message, "write the secret into it");
            None
        }
        Ok(secret) => {
            if others_may_read(&path) {
                let message = format!("every user of this machine may read the file {shown}");
                let help = format!("chmod o-rwx {shown}");
                context.warn(item.place(context), &item.key, message, help);
            }
            Some(Secret::new(secret))
        }
        Err(message) => {
            let help = "put the secret there, readable by the host; a relative path counts from \
                        the config's folder";
            item.error(context, message, help);
            None
        }
    }
}

/// The text of a file, or why it is no secret. Some files do not say beforehand how long they are.
fn read_secret_file(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let cannot = |why: String| format!("the file {shown} cannot be read: {why}");
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| cannot(error.to_string()))?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(format!("{shown} has more than {SECRET_BYTES_MAX} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| cannot("it is not UTF-8 text".to_owned()))
}

/// Whether every user of the machine may read a file.
pub(super) fn others_may_read(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o004 != 0)
}
