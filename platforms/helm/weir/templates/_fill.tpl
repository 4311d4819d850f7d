{{/*
The files of manifests/ are those that weirctl install prints; their variables are ${NAME}. A line of nothing but
a variable becomes the lines of its value, as deep as the variable stood, and is gone where the value is empty.
Takes a list: the text, and a dict of values.
*/}}
{{- define "weir.fill" -}}
{{- $values := index . 1 -}}
{{- $lines := list -}}
{{- range $line := splitList "\n" (index . 0) -}}
  {{- $text := trim $line -}}
  {{- $name := $text | trimPrefix "${" | trimSuffix "}" -}}
  {{- if and (hasPrefix "${" $text) (hasSuffix "}" $text) (hasKey $values $name) -}}
    {{- $value := get $values $name | toString | trimSuffix "\n" -}}
    {{- if $value -}}
      {{- $lines = append $lines (indent (sub (len $line) (len $text) | int) $value) -}}
    {{- end -}}
  {{- else -}}
    {{- range $name, $value := $values -}}
      {{- $line = replace (printf "${%s}" $name) (toString $value) $line -}}
    {{- end -}}
    {{- $lines = append $lines $line -}}
  {{- end -}}
{{- end -}}
{{- join "\n" $lines -}}
{{- end -}}

{{/* A fragment that goes on in the middle of another file, moved to the left edge. Takes the text. */}}
{{- define "weir.outdented" -}}
{{- regexReplaceAll "(?m)^    " (regexReplaceAll "(?m)^ *#.*\n" . "") "" -}}
{{- end -}}

{{/*
Objects with the labels of this release. Takes a list: the text of one or more, the chart's root, and what is laid over
the specification of a Deployment's pods.
*/}}
{{- define "weir.objects" -}}
{{- $root := index . 1 -}}
{{- $podSpec := index . 2 -}}
{{- range $text := splitList "\n---\n" (printf "%s\n" (index . 0)) }}
{{- $object := fromYaml $text }}
{{- with $object.Error }}{{ fail (printf "%s\n%s" . $text) }}{{ end }}
{{- $labels := dict
  "app.kubernetes.io/part-of" "weir"
  "app.kubernetes.io/instance" $root.Release.Name
  "app.kubernetes.io/managed-by" $root.Release.Service
  "app.kubernetes.io/version" ($root.Chart.AppVersion | toString)
  "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version) }}
{{- $_ := set $object.metadata "labels" (merge (default dict $object.metadata.labels) $labels) }}
{{- if and (eq $object.kind "Deployment") $podSpec }}
{{- $_ := set $object.spec.template "spec" (mergeOverwrite $object.spec.template.spec $podSpec) }}
{{- end }}
---
{{ toYaml $object }}
{{- end }}
{{- end -}}
