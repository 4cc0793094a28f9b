use std::collections::BTreeMap;

use fnmesh_invoke::Signature;
use swc_common::{BytePos, Spanned};
use swc_ecma_ast::{
    AssignExpr, AssignTarget, Decl, DefaultDecl, ExportSpecifier, Expr, MemberProp, ModuleDecl, ModuleExportName,
    ModuleItem, ObjectLit, Program, Prop, PropName, PropOrSpread, SimpleAssignTarget, Stmt,
};

use super::{Callable, Source, callable};

const DEFAULT: &str = "default";

/// Collects the functions of a file by declared and exported name.
pub(super) struct Exports<'a> {
    source: &'a Source<'a>,
    found: BTreeMap<String, Signature>,
    /// Exported name and the local name it stands for, which may be declared further down.
    aliases: Vec<(String, String)>,
}

impl<'a> Exports<'a> {
    pub(super) fn read(source: &'a Source<'a>, program: &Program) -> BTreeMap<String, Signature> {
        let mut exports = Self { source, found: BTreeMap::new(), aliases: Vec::new() };
        match program {
            Program::Module(module) => module.body.iter().for_each(|item| exports.item(item)),
            Program::Script(script) => script.body.iter().for_each(|statement| exports.statement(statement)),
        }
        for (exported, local) in exports.aliases {
            if let Some(signature) = exports.found.get(&local) {
                exports.found.insert(exported, signature.clone());
            }
        }
        exports.found
    }

    fn item(&mut self, item: &ModuleItem) {
        match item {
            ModuleItem::Stmt(statement) => self.statement(statement),
            ModuleItem::ModuleDecl(ModuleDecl::ExportDecl(export)) => self.declaration(&export.decl, export.span.lo),
            ModuleItem::ModuleDecl(ModuleDecl::ExportDefaultDecl(export)) => {
                if let DefaultDecl::Fn(function) = &export.decl {
                    let callable = Callable::Function(&function.function);
                    self.add(DEFAULT, callable, export.span.lo);
                    if let Some(name) = &function.ident {
                        self.add(&name.sym, callable, export.span.lo);
                    }
                }
            }
            ModuleItem::ModuleDecl(ModuleDecl::ExportDefaultExpr(export)) => {
                self.whole(&export.expr, export.span.lo);
            }
            ModuleItem::ModuleDecl(ModuleDecl::TsExportAssignment(export)) => {
                self.whole(&export.expr, export.span.lo);
            }
            ModuleItem::ModuleDecl(ModuleDecl::ExportNamed(export)) if export.src.is_none() => {
                for specifier in &export.specifiers {
                    if let ExportSpecifier::Named(named) = specifier {
                        let exported = named.exported.as_ref().unwrap_or(&named.orig);
                        self.aliases.push((export_name(exported), export_name(&named.orig)));
                    }
                }
            }
            ModuleItem::ModuleDecl(_) => {}
        }
    }

    fn statement(&mut self, statement: &Stmt) {
        match statement {
            Stmt::Decl(declaration) => self.declaration(declaration, declaration.span().lo),
            Stmt::Expr(statement) => {
                if let Expr::Assign(assign) = &*statement.expr {
                    self.assignment(assign, statement.span.lo);
                }
            }
            _ => {}
        }
    }

    fn declaration(&mut self, declaration: &Decl, lo: BytePos) {
        match declaration {
            Decl::Fn(function) => self.add(&function.ident.sym, Callable::Function(&function.function), lo),
            Decl::Var(variables) => {
                for variable in &variables.decls {
                    let name = variable.name.as_ident();
                    if let (Some(name), Some(function)) = (name, variable.init.as_deref().and_then(callable)) {
                        self.add(&name.id.sym, function, lo);
                    }
                }
            }
            _ => {}
        }
    }

    /// `exports.name = ...`, `module.exports.name = ...` and `module.exports = ...`.
    fn assignment(&mut self, assign: &AssignExpr, lo: BytePos) {
        let AssignTarget::Simple(SimpleAssignTarget::Member(target)) = &assign.left else {
            return;
        };
        let MemberProp::Ident(property) = &target.prop else {
            return;
        };
        if is_module(&target.obj) && property.sym == *"exports" {
            self.whole(&assign.right, lo);
        } else if is_exports(&target.obj) {
            self.member(&property.sym, &assign.right, lo);
        }
    }

    /// The value that a module exports as a whole.
    fn whole(&mut self, value: &Expr, lo: BytePos) {
        if let Expr::Object(object) = value {
            self.object(object);
            return;
        }
        if let Expr::Fn(function) = value
            && let Some(name) = &function.ident
        {
            self.member(&name.sym, value, lo);
        }
        self.member(DEFAULT, value, lo);
    }

    fn object(&mut self, object: &ObjectLit) {
        for property in &object.props {
            let PropOrSpread::Prop(property) = property else {
                continue;
            };
            let lo = property.span().lo;
            match &**property {
                Prop::Shorthand(name) => self.aliases.push((name.sym.to_string(), name.sym.to_string())),
                Prop::KeyValue(pair) => {
                    if let Some(name) = property_name(&pair.key) {
                        self.member(&name, &pair.value, lo);
                    }
                }
                Prop::Method(method) => {
                    if let Some(name) = property_name(&method.key) {
                        self.add(&name, Callable::Function(&method.function), lo);
                    }
                }
                _ => {}
            }
        }
    }

    fn member(&mut self, name: &str, value: &Expr, lo: BytePos) {
        match value {
            Expr::Ident(local) => self.aliases.push((name.to_owned(), local.sym.to_string())),
            _ => {
                if let Some(function) = callable(value) {
                    self.add(name, function, lo);
                }
            }
        }
    }

    /// The implementation of an overloaded function comes last and counts; the text may stand before any of them.
    fn add(&mut self, name: &str, callable: Callable<'_>, lo: BytePos) {
        let mut signature = self.source.signature_of(callable);
        let earlier = self.found.remove(name).and_then(|earlier| earlier.doc);
        signature.doc = self.source.doc(lo).or(earlier);
        self.found.insert(name.to_owned(), signature);
    }
}

fn is_module(expression: &Expr) -> bool {
    expression.as_ident().is_some_and(|name| name.sym == *"module")
}

fn is_exports(expression: &Expr) -> bool {
    match expression {
        Expr::Ident(name) => name.sym == *"exports",
        Expr::Member(member) => {
            is_module(&member.obj) && member.prop.as_ident().is_some_and(|name| name.sym == *"exports")
        }
        _ => false,
    }
}

fn export_name(name: &ModuleExportName) -> String {
    name.atom().to_string()
}

fn property_name(name: &PropName) -> Option<String> {
    match name {
        PropName::Ident(name) => Some(name.sym.to_string()),
        PropName::Str(name) => Some(name.value.to_string_lossy().into_owned()),
        _ => None,
    }
}
