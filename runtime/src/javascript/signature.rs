use std::collections::BTreeMap;

use fnmesh_invoke::{Parameter, ParameterKind, Signature};
use swc_common::{
    BytePos, FileName, SourceMap, Span, Spanned,
    comments::{CommentKind, Comments, SingleThreadedComments},
    sync::Lrc,
};
use swc_ecma_ast::{ArrowExpr, ClassMember, EsVersion, Expr, Function, Pat, Program, Prop, PropOrSpread, TsTypeAnn};
use swc_ecma_parser::{EsSyntax, Syntax, TsSyntax, parse_file_as_expr, parse_file_as_program};

use self::exports::Exports;
use super::{
    isolated,
    literal::{type_of_default, type_of_hint},
};

mod exports;

/// Reads the parameters out of what JavaScript's `Function.prototype.toString` gives.
///
/// A destructured parameter is named by its pattern. `None` when the text is no JavaScript
/// function, as with native and bound ones.
pub fn parameters(function_source: &str) -> Option<Vec<Parameter>> {
    isolated::run(function_source, || {
        // Functions and arrows are expressions; methods need an object around them, private ones a class.
        [("(", "\n)"), ("({", "\n})"), ("(class {", "\n})")].into_iter().find_map(|(before, after)| {
            let text = format!("{before}{function_source}{after}");
            let source = Source::new(&text, Syntax::Es(EsSyntax::default()));
            let expression = source.expression()?;
            Some(source.signature_of(function_in(unparenthesized(&expression))?).parameters)
        })
    })?
}

/// Reads the signatures of the functions at the top level of a TypeScript file, by the names they
/// are declared and exported under; a default export is `default` too.
///
/// Optional parameters have the default `undefined`. Empty when the file cannot be parsed.
pub fn typescript_signatures(source: &str) -> BTreeMap<String, Signature> {
    signatures(source, Syntax::Typescript(TsSyntax { decorators: true, ..TsSyntax::default() }))
}

/// Reads the JSDoc texts of the functions of a JavaScript file, by the same names.
pub fn documentation(source: &str) -> BTreeMap<String, String> {
    let signatures = signatures(source, Syntax::Es(EsSyntax::default()));
    signatures.into_iter().filter_map(|(name, signature)| Some((name, signature.doc?))).collect()
}

fn signatures(source: &str, syntax: Syntax) -> BTreeMap<String, Signature> {
    let found = isolated::run(source, || {
        let source = Source::new(source, syntax);
        let program = source.program()?;
        Some(Exports::read(&source, &program))
    });
    found.flatten().unwrap_or_default()
}

fn unparenthesized(mut expression: &Expr) -> &Expr {
    while let Expr::Paren(inner) = expression {
        expression = &inner.expr;
    }
    expression
}

/// The two shapes of functions.
#[derive(Clone, Copy)]
enum Callable<'a> {
    Function(&'a Function),
    Arrow(&'a ArrowExpr),
}

/// The function that an expression is, or that the object or class around it holds.
fn function_in(expression: &Expr) -> Option<Callable<'_>> {
    match expression {
        Expr::Object(object) => match object.props.as_slice() {
            [PropOrSpread::Prop(property)] => match &**property {
                Prop::Method(method) => Some(Callable::Function(&method.function)),
                _ => None,
            },
            _ => None,
        },
        Expr::Class(class) => match class.class.body.as_slice() {
            [ClassMember::Method(method)] => Some(Callable::Function(&method.function)),
            [ClassMember::PrivateMethod(method)] => Some(Callable::Function(&method.function)),
            _ => None,
        },
        _ => callable(expression),
    }
}

fn callable(expression: &Expr) -> Option<Callable<'_>> {
    match expression {
        Expr::Fn(function) => Some(Callable::Function(&function.function)),
        Expr::Arrow(arrow) => Some(Callable::Arrow(arrow)),
        Expr::Paren(inner) => callable(&inner.expr),
        _ => None,
    }
}

/// A text with what is needed to read spans of its tree.
struct Source<'a> {
    text: &'a str,
    syntax: Syntax,
    file: Lrc<swc_common::SourceFile>,
    comments: SingleThreadedComments,
}

impl<'a> Source<'a> {
    fn new(text: &'a str, syntax: Syntax) -> Self {
        let file = SourceMap::default().new_source_file(FileName::Anon.into(), text.to_owned());
        Self { text, syntax, file, comments: SingleThreadedComments::default() }
    }

    fn expression(&self) -> Option<Box<Expr>> {
        parse_file_as_expr(&self.file, self.syntax, EsVersion::latest(), None, &mut Vec::new()).ok()
    }

    fn program(&self) -> Option<Program> {
        let comments = Some(&self.comments as &dyn Comments);
        parse_file_as_program(&self.file, self.syntax, EsVersion::latest(), comments, &mut Vec::new()).ok()
    }

    fn between(&self, lo: BytePos, hi: BytePos) -> &'a str {
        let offset = |position: BytePos| position.0.saturating_sub(self.file.start_pos.0) as usize;
        self.text.get(offset(lo)..offset(hi)).unwrap_or_default()
    }

    /// The text of `span`, on one line.
    fn line(&self, span: Span) -> String {
        one_line(self.between(span.lo, span.hi))
    }

    fn signature_of(&self, callable: Callable<'_>) -> Signature {
        match callable {
            Callable::Function(function) => Signature {
                parameters: function.params.iter().map(|parameter| self.parameter(&parameter.pat)).collect(),
                returns: self.hint(function.return_type.as_deref()),
                is_async: function.is_async,
                is_generator: function.is_generator,
                ..Signature::default()
            },
            Callable::Arrow(arrow) => Signature {
                parameters: arrow.params.iter().map(|parameter| self.parameter(parameter)).collect(),
                returns: self.hint(arrow.return_type.as_deref()),
                is_async: arrow.is_async,
                ..Signature::default()
            },
        }
    }

    fn parameter(&self, pattern: &Pat) -> Parameter {
        match pattern {
            Pat::Ident(name) => {
                let parameter = self.hinted(name.id.sym.to_string(), name.type_ann.as_deref());
                Parameter { default: name.id.optional.then(|| "undefined".to_owned()), ..parameter }
            }
            Pat::Object(object) => self.pattern(object.span, object.type_ann.as_deref()),
            Pat::Array(array) => self.pattern(array.span, array.type_ann.as_deref()),
            Pat::Assign(assign) => {
                let mut parameter = self.parameter(&assign.left);
                if parameter.hint.is_none() {
                    parameter.value_type = type_of_default(&assign.right);
                }
                Parameter { default: Some(self.line(assign.right.span())), ..parameter }
            }
            Pat::Rest(rest) => {
                let Parameter { name, .. } = self.parameter(&rest.arg);
                Parameter { kind: ParameterKind::VarPositional, ..self.hinted(name, rest.type_ann.as_deref()) }
            }
            _ => Parameter { name: self.line(pattern.span()), ..Parameter::default() },
        }
    }

    /// A destructured parameter; its span may or may not include the hint.
    fn pattern(&self, span: Span, hint: Option<&TsTypeAnn>) -> Parameter {
        let end = hint.map_or(span.hi, |hint| span.hi.min(hint.span.lo));
        let name = one_line(self.between(span.lo, end).trim_end().trim_end_matches([':', '?']).trim_end());
        self.hinted(name, hint)
    }

    fn hinted(&self, name: String, hint: Option<&TsTypeAnn>) -> Parameter {
        let value_type = hint.map(|hint| type_of_hint(&hint.type_ann)).unwrap_or_default();
        Parameter { name, value_type, hint: self.hint(hint), ..Parameter::default() }
    }

    fn hint(&self, hint: Option<&TsTypeAnn>) -> Option<String> {
        hint.map(|hint| self.line(hint.type_ann.span()))
    }

    /// The JSDoc text right before `position`, without its asterisks.
    fn doc(&self, position: BytePos) -> Option<String> {
        let comments = self.comments.get_leading(position)?;
        let comment = comments.iter().rev().find(|comment| comment.kind == CommentKind::Block)?;
        let text = comment.text.strip_prefix('*')?;
        let lines = text.lines().map(|line| {
            let line = line.trim();
            line.strip_prefix('*').map_or(line, |rest| rest.strip_prefix(' ').unwrap_or(rest))
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }
}

fn one_line(text: &str) -> String {
    if text.contains('\n') { text.split_whitespace().collect::<Vec<_>>().join(" ") } else { text.to_owned() }
}

#[cfg(test)]
mod tests;
