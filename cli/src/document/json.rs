//! JSON, with places. Whether it is JSON at all is told by the reader that gateways use, so this one is
//! asked only about what that one took.

use jsonc_parser::ast::{ObjectProp, Value as Ast};
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

use super::tree::{Member, Node, Span, Unreadable, Value};

const STRICT: ParseOptions = ParseOptions {
    allow_comments: false,
    allow_loose_object_property_names: false,
    allow_trailing_commas: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

pub fn parse(text: &str) -> Result<Node, Unreadable> {
    let wrong = |message: String, span: Span| Unreadable {
        message: format!("is not JSON: {message}"),
        span,
    };
    let parsed = parse_to_ast(text, &CollectOptions::default(), &STRICT).map_err(|error| {
        let range = error.range();
        wrong(error.kind().to_string(), range.start..range.end)
    })?;
    let Some(value) = parsed.value else {
        return Err(wrong("there is nothing".to_owned(), 0..0));
    };
    node(&value).map_err(|(message, span)| wrong(message, span))
}

fn node(ast: &Ast<'_>) -> Result<Node, (String, Span)> {
    let range = ast.range();
    let span = range.start..range.end;
    let value = match ast {
        Ast::NullKeyword(_) => Value::Null,
        Ast::BooleanLit(literal) => Value::Bool(literal.value),
        Ast::NumberLit(literal) => match serde_json::from_str(literal.value) {
            Ok(number) => Value::Number(number),
            Err(error) => return Err((error.to_string(), span)),
        },
        Ast::StringLit(literal) => Value::Text(literal.value.clone().into_owned()),
        Ast::Array(array) => {
            Value::List(array.elements.iter().map(node).collect::<Result<_, _>>()?)
        }
        Ast::Object(object) => {
            let members = object.properties.iter().map(member);
            Value::Object(members.collect::<Result<_, _>>()?)
        }
    };
    Ok(Node { value, span })
}

fn member(property: &ObjectProp<'_>) -> Result<Member, (String, Span)> {
    let name = property.name.range();
    Ok(Member {
        name: property.name.as_str().to_owned(),
        name_span: name.start..name.end,
        node: node(&property.value)?,
    })
}
