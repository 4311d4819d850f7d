#!/bin/sh
# Prints a template with its variables filled in from the environment.
#
#   render.sh TEMPLATE
#
# ${NAME} becomes the value of NAME. A line of nothing but ${POLICY} becomes the lines of the file
# that POLICY names, indented like the placeholder and otherwise untouched: what is wrong with a
# policy is for the filter to say. A variable that is not set, or a file that is not there, is an
# error, and nothing is printed.
set -eu
# Bytes, not characters: a policy may hold anything.
LC_ALL=C
export LC_ALL

template=$1
newline='
'

fail() {
  echo "render.sh: $1" >&2
  exit 1
}

[ -r "$template" ] || fail "cannot read the template $template"

script=
for name in $(tr '$' '\n' <"$template" | sed -n 's/^{\([A-Z_][A-Z0-9_]*\)}.*/\1/p'); do
  eval "value=\${$name-} state=\${$name+set}"
  [ "$state" ] || fail "$name is not set, and $template needs it"
  case $value in *"$newline"*) fail "$name has more than one line" ;; esac
  [ "$name" = POLICY ] && continue
  value=$(printf '%s' "$value" | sed 's/[\\/&]/\\&/g')
  script="${script}s/\${$name}/$value/g$newline"
done

placeholder=$(sed -n 's/^\( *\)\${POLICY}$/\1|/p' "$template")
if [ "$placeholder" ]; then
  [ -f "$POLICY" ] && [ -r "$POLICY" ] || fail "cannot read the policy POLICY=$POLICY"
  # The echo ends a last line that does not end itself.
  { sed "s/^/${placeholder%|}/" "$POLICY"; echo; } |
    sed -e '/^ *\${POLICY}$/{' -e 'r /dev/stdin' -e 'd' -e '}' -e "$script" "$template"
else
  sed -e "$script" "$template"
fi
