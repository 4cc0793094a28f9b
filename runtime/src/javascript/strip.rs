use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use fnmesh_invoke::Failure;
use swc_common::{
    GLOBALS, Globals, SourceMap, Span,
    errors::{DiagnosticBuilder, Emitter, HANDLER, Handler},
    sync::Lrc,
};
use swc_ts_fast_strip::{ErrorCode, Options, TsError, operate};

use super::isolated;

/// Blanks out the types of a TypeScript file, so that every line and column stays where it is.
///
/// What is more than types (enums, namespaces, parameter properties) is rewritten instead, with an
/// inline source map back to the original lines.
///
/// # Errors
/// A `SyntaxError` whose stack begins with file, line and the line's text, as Node shows it.
pub fn strip_types(path: &Path, source: &str) -> Result<String, Failure> {
    isolated::run(source, || strip(path, source)).unwrap_or_else(|| {
        let message = "the TypeScript parser failed on this file".to_owned();
        Err(Failure {
            kind: "SyntaxError".into(),
            stack: format!("{}\nSyntaxError: {message}", path.display()),
            message,
        })
    })
}

fn strip(path: &Path, source: &str) -> Result<String, Failure> {
    let blanked = run_swc(path, source, r#"{"mode":"strip-only"}"#);
    match blanked {
        Ok((code, _)) => Ok(code),
        Err(rejected) if rejected.unsupported => {
            let options = r#"{"mode":"transform","sourceMap":true,"transform":{"noEmptyExport":true}}"#;
            let (code, map) = run_swc(path, source, options).map_err(|rejected| rejected.failure)?;
            let map = STANDARD.encode(map.unwrap_or_default());
            Ok(format!("{code}\n//# sourceMappingURL=data:application/json;base64,{map}\n"))
        }
        Err(rejected) => Err(rejected.failure),
    }
}

struct Rejected {
    unsupported: bool,
    failure: Failure,
}

fn run_swc(path: &Path, source: &str, options: &str) -> Result<(String, Option<String>), Rejected> {
    let mut options: Options = serde_json::from_str(options).expect("the options are constants that swc knows");
    options.filename = Some(path.display().to_string());
    let map = Lrc::new(SourceMap::default());
    let found = Diagnostics::default();
    let handler = Handler::with_emitter(false, false, Box::new(found.clone()));
    let output =
        GLOBALS.set(&Globals::new(), || HANDLER.set(&handler, || operate(&map, &handler, source.to_owned(), options)));
    output.map(|output| (output.code, output.map)).map_err(|error| Rejected {
        unsupported: matches!(error.code, ErrorCode::UnsupportedSyntax),
        failure: found.failure(path, source, &map, &error),
    })
}

/// What swc says and where.
type Complaint = (String, Option<Span>);

/// Keeps the first thing swc complains about.
#[derive(Clone, Default)]
struct Diagnostics(Arc<Mutex<Option<Complaint>>>);

impl Emitter for Diagnostics {
    fn emit(&mut self, diagnostic: &mut DiagnosticBuilder<'_>) {
        let mut first = self.0.lock().expect("nothing panics while it is held");
        first.get_or_insert_with(|| (diagnostic.message(), diagnostic.span.primary_span()));
    }
}

impl Diagnostics {
    fn failure(&self, path: &Path, source: &str, map: &SourceMap, error: &TsError) -> Failure {
        let first = self.0.lock().expect("nothing panics while it is held").take();
        let (message, span) = first.unwrap_or_else(|| (error.message.clone(), None));
        let place = span.map(|span| map.lookup_char_pos(span.lo));
        let stack = match place {
            Some(place) => {
                let line = source.lines().nth(place.line.saturating_sub(1)).unwrap_or_default();
                let indent: String =
                    line.chars().take(place.col.0).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
                format!("{}:{}:{}\n{line}\n{indent}^\n", path.display(), place.line, place.col.0 + 1)
            }
            None => format!("{}\n", path.display()),
        };
        Failure { kind: "SyntaxError".into(), stack: format!("{stack}\nSyntaxError: {message}"), message }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stripped(source: &str) -> String {
        strip_types(Path::new("/app/shop.ts"), source).unwrap()
    }

    fn refused(source: &str) -> Failure {
        strip_types(Path::new("/app/shop.ts"), source).unwrap_err()
    }

    #[test]
    fn types_become_blanks_in_place() {
        let source = "export function add(a: number, b?: string): Promise<number> { return a as any; }\ntype X = 1;\n";
        let code = stripped(source);
        assert_eq!(code.len(), source.len());
        assert_eq!(code.find("return"), source.find("return"));
        let words: Vec<_> = code.split_whitespace().collect();
        assert_eq!(words.join(" "), "export function add(a , b ) { return a ; } ;");
    }

    #[test]
    fn javascript_is_left_alone() {
        let source = "#!/usr/bin/env node\nconst é = '𝄞'; exports.f = (a = `${é}`) => a < 1 && é > 2;\n";
        assert_eq!(stripped(source), source);
    }

    #[test]
    fn enums_are_rewritten_with_a_source_map() {
        let code =
            stripped("enum Size { Small = 1, Large }\nclass A { constructor(public size: Size) {} }\nexports.A = A;\n");
        assert!(code.contains("Size[\"Large\"]") || code.contains("Large"), "{code}");
        assert!(code.contains("this.size = size"), "{code}");
        assert!(!code.contains("public") && !code.contains("export {"), "{code}");
        let map = code.split_once("\n//# sourceMappingURL=data:application/json;base64,").unwrap().1;
        let map: serde_json::Value = serde_json::from_slice(&STANDARD.decode(map.trim_end()).unwrap()).unwrap();
        assert_eq!(map["sources"], serde_json::json!(["/app/shop.ts"]));
    }

    #[test]
    fn syntax_error_shows_its_place() {
        let failure = refused("const a = 1;\nconst\tx: number = ;\n");
        assert_eq!(failure.kind, "SyntaxError");
        assert!(failure.message.contains("Expression expected"), "{failure:?}");
        let shown = "/app/shop.ts:2:19\nconst\tx: number = ;\n     \t            ^\n\nSyntaxError: ";
        assert!(failure.stack.starts_with(shown), "{}", failure.stack);
    }

    #[test]
    fn deep_nesting_does_not_end_the_process() {
        for (deep, times) in
            [("(", 2000), ("[", 2000), ("{a:", 2000), ("a=>", 2000), ("a?b:", 2000), ("<T>", 100), ("A<", 100)]
        {
            refused(&format!("let x = {};", deep.repeat(times)));
        }
        assert!(stripped(&format!("let x: any = {}1;", "!".repeat(20_000))).ends_with("!1;"));
    }

    proptest! {
        #[test]
        fn any_text_is_stripped_or_refused(text in "\\PC{0,60}|[a-z(){}\\[\\]=>,.:?*/`'\"$#<>| \n\u{e9}]{0,60}") {
            if let Err(failure) = strip_types(Path::new("any.ts"), &text) {
                prop_assert!(!failure.message.is_empty());
            }
        }
    }
}
