use fnmesh_invoke::ValueType;
use swc_ecma_ast::{
    Expr, Lit, TsEntityName, TsKeywordTypeKind, TsLit, TsType, TsTypeRef, TsUnionOrIntersectionType, UnaryOp,
};

/// The kind of value a literal default asks for.
pub(super) fn type_of_default(default: &Expr) -> ValueType {
    match default {
        Expr::Lit(Lit::Num(_)) => ValueType::Number,
        Expr::Unary(unary) if matches!(unary.op, UnaryOp::Minus | UnaryOp::Plus) => type_of_default(&unary.arg),
        Expr::Lit(Lit::BigInt(_)) => ValueType::Integer,
        Expr::Lit(Lit::Bool(_)) => ValueType::Boolean,
        Expr::Lit(Lit::Str(_)) | Expr::Tpl(_) => ValueType::String,
        Expr::Array(_) => ValueType::Array,
        Expr::Object(_) => ValueType::Object,
        Expr::Paren(inner) => type_of_default(&inner.expr),
        _ => ValueType::Any,
    }
}

/// The kind of value a TypeScript hint asks for.
pub(super) fn type_of_hint(hint: &TsType) -> ValueType {
    match hint {
        TsType::TsKeywordType(keyword) => match keyword.kind {
            TsKeywordTypeKind::TsNumberKeyword => ValueType::Number,
            TsKeywordTypeKind::TsBigIntKeyword => ValueType::Integer,
            TsKeywordTypeKind::TsStringKeyword => ValueType::String,
            TsKeywordTypeKind::TsBooleanKeyword => ValueType::Boolean,
            TsKeywordTypeKind::TsObjectKeyword => ValueType::Object,
            _ => ValueType::Any,
        },
        TsType::TsLitType(literal) => match literal.lit {
            TsLit::Number(_) => ValueType::Number,
            TsLit::BigInt(_) => ValueType::Integer,
            TsLit::Bool(_) => ValueType::Boolean,
            TsLit::Str(_) | TsLit::Tpl(_) => ValueType::String,
        },
        TsType::TsArrayType(_) | TsType::TsTupleType(_) => ValueType::Array,
        TsType::TsTypeLit(_) | TsType::TsMappedType(_) => ValueType::Object,
        TsType::TsTypeRef(reference) => type_of_name(reference),
        TsType::TsParenthesizedType(inner) => type_of_hint(&inner.type_ann),
        TsType::TsTypeOperator(operator) => type_of_hint(&operator.type_ann),
        TsType::TsUnionOrIntersectionType(TsUnionOrIntersectionType::TsUnionType(union)) => type_of_union(&union.types),
        TsType::TsUnionOrIntersectionType(TsUnionOrIntersectionType::TsIntersectionType(both)) => {
            type_of_union(&both.types)
        }
        _ => ValueType::Any,
    }
}

fn type_of_name(reference: &TsTypeRef) -> ValueType {
    let TsEntityName::Ident(name) = &reference.type_name else {
        return ValueType::Any;
    };
    match name.sym.as_str() {
        "Array" | "ReadonlyArray" => ValueType::Array,
        "Record" | "Partial" | "Required" | "Pick" | "Omit" => ValueType::Object,
        "Uint8Array" | "Buffer" | "ArrayBuffer" => ValueType::Bytes,
        "Request" => ValueType::Request,
        "Readonly" => {
            let inner = reference.type_params.as_ref().and_then(|types| types.params.first());
            inner.map_or(ValueType::Object, |inner| type_of_hint(inner))
        }
        _ => ValueType::Any,
    }
}

/// What all members agree on, apart from `undefined` and `null`.
fn type_of_union(members: &[Box<TsType>]) -> ValueType {
    let mut kinds = members.iter().filter(|member| !is_absent(member)).map(|member| type_of_hint(member));
    let first = kinds.next().unwrap_or_default();
    if kinds.all(|kind| kind == first) { first } else { ValueType::Any }
}

fn is_absent(hint: &TsType) -> bool {
    let TsType::TsKeywordType(keyword) = hint else {
        return false;
    };
    matches!(keyword.kind, TsKeywordTypeKind::TsUndefinedKeyword | TsKeywordTypeKind::TsNullKeyword)
}
