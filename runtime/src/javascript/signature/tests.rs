use fnmesh_invoke::ValueType;
use proptest::prelude::*;

use super::*;

/// Parameters as `name`, `name = default`, `...name`.
fn shown(function_source: &str) -> Vec<String> {
    let parameters = parameters(function_source).unwrap_or_else(|| panic!("cannot read {function_source}"));
    parameters
        .iter()
        .map(|parameter| match (&parameter.default, parameter.kind) {
            (_, ParameterKind::VarPositional) => format!("...{}", parameter.name),
            (Some(default), _) => format!("{} = {default}", parameter.name),
            (None, _) => parameter.name.clone(),
        })
        .collect()
}

#[test]
fn every_shape_of_function_is_read() {
    for source in [
        "function merge(a, b = 2, ...rest) { return a }",
        "function (a, b = 2, ...rest) {}",
        "async function merge(a, b = 2, ...rest) { await a }",
        "function* merge(a, b = 2, ...rest) { yield a }",
        "async function* merge(a, b = 2, ...rest) { for await (const x of a) yield x }",
        "(a, b = 2, ...rest) => a",
        "async (a, b = 2, ...rest) => { await a }",
        "merge(a, b = 2, ...rest) { return super.merge(a) }",
        "async merge(a, b = 2, ...rest) {}",
        "*merge(a, b = 2, ...rest) {}",
        "async *merge(a, b = 2, ...rest) {}",
        "'quoted name'(a, b = 2, ...rest) {}",
        "[Symbol.iterator](a, b = 2, ...rest) {}",
        "42(a, b = 2, ...rest) {}",
        "#private(a, b = 2, ...rest) {}",
        "constructor(a, b = 2, ...rest) {}",
        "function merge(a, /* why */ b = 2, // it ends here\n...rest) { return import.meta.url } // done",
    ] {
        assert_eq!(shown(source), ["a", "b = 2", "...rest"], "{source}");
    }
}

#[test]
fn arrow_without_parentheses_is_read() {
    assert_eq!(shown("a => a * 2"), ["a"]);
    assert_eq!(shown("async a => a"), ["a"]);
    assert_eq!(shown("() => 1"), [""; 0]);
}

#[test]
fn destructured_parameters_are_named_by_their_pattern() {
    assert_eq!(
        shown("({ a, b: { c = 1 } }, [d, ...e] = [], {\n  f,\n  g\n}) => a"),
        ["{ a, b: { c = 1 } }", "[d, ...e] = []", "{ f, g }"]
    );
}

#[test]
fn defaults_keep_their_text() {
    assert_eq!(
        shown(r#"(a = "x,  )", b = { c: [1, 2] }, d = f(`${a}`), é = "ü") => a"#),
        [r#"a = "x,  )""#, "b = { c: [1, 2] }", "d = f(`${a}`)", "é = \"ü\""]
    );
}

#[test]
fn literal_default_tells_the_type() {
    let parameters = parameters(
        "(a = 1, b = -1.5, c = 'x', d = `y`, e = true, f = [], g = {}, h = 1n, i = null, j = new Date()) => a",
    );
    let types: Vec<_> = parameters.unwrap().iter().map(|parameter| parameter.value_type).collect();
    use ValueType::{Any, Array, Boolean, Integer, Number, Object, String};
    assert_eq!(types, [Number, Number, String, String, Boolean, Array, Object, Integer, Any, Any]);
}

#[test]
fn what_is_no_function_has_no_parameters() {
    for source in [
        "function () { [native code] }",
        "function merge() { [native code] }",
        "class A { constructor(a) {} }",
        "1",
        "",
        "{ a(b) {}, c(d) {} }",
        "a) => b, (c",
    ] {
        assert_eq!(parameters(source), None, "{source}");
    }
}

const SHOP: &str = r#"
import type { Item } from './item';
/* no JSDoc */
/**
 * Adds up a cart.
 *
 *   - indented
 * @param items what is in it
 */
export async function total(items: Item[], tax: number = 0, note?: string, ...more: Array<string>): Promise<number> {
  return 0;
}
/** Over and over. */
export function pick(a: string): string;
export function pick(a: number): number;
export function pick(a: any): any { return a; }
export const page = async (request: Request, { lang = 'en' }: { lang?: string } = {}): Promise<Response> => new Response();
const hidden = function* (this: Shop, a: Readonly<string[]>) { yield 1; };
function local(id: bigint) {}
export { hidden as shown, local, missing };
export default (b: Uint8Array) => b;
"#;

#[test]
fn typescript_hints_defaults_and_returns_are_read() {
    let found = typescript_signatures(SHOP);
    let text = |name: &str| found[name].to_string();
    assert_eq!(
        text("total"),
        "(items: Item[], tax: number = 0, note: string = undefined, *more: Array<string>) -> Promise<number>"
    );
    assert_eq!(text("pick"), "(a: any) -> any");
    assert_eq!(text("page"), "(request: Request, { lang = 'en' }: { lang?: string } = {}) -> Promise<Response>");
    assert_eq!(text("shown"), "(a: Readonly<string[]>)");
    assert_eq!(text("local"), "(id: bigint)");
    assert_eq!(text("default"), "(b: Uint8Array)");
    assert!(found["total"].is_async && !found["total"].is_generator);
    assert!(found["shown"].is_generator && !found["shown"].is_async);
    assert!(!found.contains_key("missing"));
}

#[test]
fn doc_has_no_asterisks() {
    let found = typescript_signatures(SHOP);
    let total = "Adds up a cart.\n\n  - indented\n@param items what is in it";
    assert_eq!(found["total"].doc.as_deref(), Some(total));
    assert_eq!(found["pick"].doc.as_deref(), Some("Over and over."));
    assert_eq!(found["page"].doc, None);
}

#[test]
fn hints_map_to_value_types() {
    use ValueType::{Any, Array, Boolean, Bytes, Integer, Number, Object, Request, String};
    for (hint, expected) in [
        ("number", Number),
        ("bigint", Integer),
        ("string", String),
        ("boolean", Boolean),
        ("object", Object),
        ("string[]", Array),
        ("readonly string[]", Array),
        ("[number, string]", Array),
        ("Array<string>", Array),
        ("Record<string, number>", Object),
        ("Readonly<string>", String),
        ("{ a: number }", Object),
        ("{ a: number } & { b: number }", Object),
        ("{ [K in 'a']: number }", Object),
        ("Uint8Array", Bytes),
        ("Buffer", Bytes),
        ("Request", Request),
        ("'a' | 'b'", String),
        ("`a${string}`", String),
        ("1 | 2 | null", Number),
        ("string | undefined", String),
        ("string | number", Any),
        ("(string)", String),
        ("Date", Any),
        ("shop.Item", Any),
        ("unknown", Any),
        ("() => void", Any),
    ] {
        let found = typescript_signatures(&format!("export function f(a: {hint}) {{}}"));
        let parameter = &found["f"].parameters[0];
        assert_eq!((parameter.value_type, parameter.hint.as_deref()), (expected, Some(hint)));
    }
}

#[test]
fn default_export_has_its_own_name_too() {
    let found = typescript_signatures("/** Says hello. */ export default async function hello(name: string) {}");
    assert_eq!(found["default"], found["hello"]);
    assert_eq!(found["hello"].doc.as_deref(), Some("Says hello."));
    assert!(typescript_signatures("function f(a: string) {} export default f;").contains_key("default"));
}

#[test]
fn commonjs_exports_are_documented() {
    let found = documentation(
        "#!/usr/bin/env node\n/** One. */ exports.one = (a) => a;\n/** Two. */\nmodule.exports.two = function () {};\n\
         /** Three. */ function three() {}\nconst four = () => 4;\n\
         module.exports = { three, /** Five. */ five() {}, /** Six. */ six: async () => 6, alias: three, 'se-ven': 7 };",
    );
    let expected = [
        ("alias", "Three."),
        ("five", "Five."),
        ("one", "One."),
        ("six", "Six."),
        ("three", "Three."),
        ("two", "Two."),
    ];
    assert_eq!(found, expected.map(|(name, doc)| (name.to_owned(), doc.to_owned())).into());
}

#[test]
fn commonjs_function_as_whole_export_is_default() {
    let found = documentation("/** Adds. */ module.exports = function add(a, b) { return a + b };");
    assert_eq!(found["default"], "Adds.");
    assert_eq!(found["add"], "Adds.");
}

#[test]
fn source_with_errors_has_no_signatures() {
    assert!(typescript_signatures("export function f(a: ) {}").is_empty());
    assert!(documentation("/** a */ export function f(").is_empty());
}

#[test]
fn deep_nesting_does_not_end_the_process() {
    for deep in ["(", "[", "{a:", "a=>", "a?b:", "a(", "`${", "function(){"] {
        let source = format!("(a) => {}", deep.repeat(1000));
        assert_eq!(parameters(&source), None, "{deep}");
        assert!(typescript_signatures(&format!("export const f = {source}")).is_empty(), "{deep}");
    }
    assert_eq!(shown(&format!("(a) => {}a", "!".repeat(20_000))), ["a"]);
}

#[test]
fn long_chain_is_parsed_and_freed() {
    let chain = format!("(a) => {}a", "a + ".repeat(50_000));
    assert_eq!(shown(&chain), ["a"]);
}

proptest! {
    #[test]
    fn any_text_is_read_without_panic(text in "\\PC{0,60}|[a-z(){}\\[\\]=>,.:?*/`'\"$# \n\u{e9}]{0,60}") {
        parameters(&text);
        typescript_signatures(&text);
        documentation(&text);
    }

    #[test]
    fn names_and_defaults_survive(names in prop::collection::vec("[a-z]{1,8}_", 0..6), default in 0_u32..1000) {
        let list: Vec<_> = names.iter().enumerate().map(|(i, name)| format!("{name}{i} = {default}")).collect();
        let source = format!("function f({}) {{ }}", list.join(","));
        prop_assert_eq!(shown(&source), list);
    }
}
