{{/* What the variables of manifests/ stand for, as a YAML document: weirctl install has the same in Rust. */}}
{{- define "weir.values" -}}
{{- $v := .Values -}}
{{- $isIstio := eq $v.provider "istio" -}}
{{- $isSidecar := eq $v.store "sidecar" -}}
{{- $service := printf "weir-store.%s.svc.%s" .Release.Namespace $v.clusterDomain -}}
{{- $image := printf "%s/%%s:%s" $v.image.registry ($v.image.tag | default .Chart.AppVersion) -}}
{{- $digest := $v.image.filterDigest | trimPrefix "sha256:" -}}
{{- $url := $v.redis.url -}}
{{- if $v.redis.throwaway -}}
  {{- $url = printf "weir-redis.%s.svc.%s:6379" .Release.Namespace $v.clusterDomain -}}
{{- end -}}
{{- if not (contains "://" $url) }}{{ $url = printf "redis://%s" $url }}{{ end -}}
{{- $values := dict
  "GATEWAY" $v.gateway.name
  "GATEWAY_NAMESPACE" $v.gateway.namespace
  "GATEWAY_PODS_NAMESPACE" ($v.gateway.podsNamespace | default (ternary $v.gateway.namespace "envoy-gateway-system" $isIstio))
  "RELEASE_NAMESPACE" .Release.Namespace
  "FILTER_IMAGE" (printf $image "filter")
  "SIDECAR_IMAGE" (printf $image "sidecar")
  "REDIS_IMAGE" $v.image.redis
  "FILTER_SHA256" ($digest | default "nil")
  "NAMESPACE" $v.namespace
  "TOPOLOGY" (ternary "cluster" "single" $v.redis.cluster)
  "TRANSPORT" (ternary "http" "stream" $isSidecar)
  "TIMEOUT_MS" (int $v.timeoutMs)
  "TIMEOUT_SECONDS" (printf "%d.%03ds" (div $v.timeoutMs 1000) (mod $v.timeoutMs 1000))
  "GATEWAYS" (int $v.gateways)
  "WORKERS" (int $v.workers)
-}}

{{- $fetch := list -}}
{{- if $digest }}{{ $fetch = append $fetch (printf "sha256: %s" $digest) }}{{ end -}}
{{- if $isIstio }}{{ $fetch = append $fetch "imagePullPolicy: IfNotPresent" }}{{ end -}}
{{- $_ := set $values "FILTER_FETCH" (join "\n" $fetch) -}}

{{- $references := printf "targetRefs:\n- { group: gateway.networking.k8s.io, kind: Gateway, name: %q }" $v.gateway.name -}}
{{- $labels := toJson $v.gateway.selector -}}
{{- $_ := set $values "TARGET" (empty $v.gateway.selector | ternary $references (printf "selector:\n  matchLabels: %s" $labels)) -}}
{{- $_ := set $values "WORKLOAD" (empty $v.gateway.selector | ternary $references (printf "workloadSelector:\n  labels: %s" $labels)) -}}

{{- $ofGateway := dict "gateway.networking.k8s.io/gateway-name" $v.gateway.name -}}
{{- if not $isIstio -}}
  {{- $ofGateway = dict "gateway.envoyproxy.io/owning-gateway-name" $v.gateway.name "gateway.envoyproxy.io/owning-gateway-namespace" $v.gateway.namespace -}}
{{- end -}}
{{- $_ := set $values "GATEWAY_POD_LABELS" (empty $v.gateway.selector | ternary $ofGateway $v.gateway.selector | toJson) -}}

{{/* What gateways show the sidecar: as said, else as it is, else made up. */}}
{{- $secret := "" -}}
{{- if $isSidecar -}}
  {{- $secret = $v.sidecar.secret -}}
  {{- if not $secret -}}
    {{- $before := lookup "v1" "Secret" .Release.Namespace "weir-store" -}}
    {{- if $before }}{{ $secret = b64dec $before.data.secret }}{{ else }}{{ $secret = randAlphaNum 32 }}{{ end -}}
  {{- end -}}
{{- end -}}
{{- $_ := set $values "STORE_SECRET" $secret -}}
{{- $cluster := and $isIstio $isSidecar | ternary (printf "outbound|6380||%s" $service) "weir_store" -}}
{{- $_ := set $values "STORE_CLUSTER" $cluster -}}

{{- $identity := dict "trust" "never" -}}
{{- if $v.trust }}{{ $identity = dict "trust" $v.trust "direct_peer" (dict "header" "x-envoy-is-timeout-retry") }}{{ end -}}
{{- range $who, $path := $v.claims }}{{ if $path }}{{ $_ := set $identity $who (dict "claim" $path) }}{{ end }}{{ end -}}
{{- $_ := set $values "IDENTITY" (toJson $identity) -}}
{{- $_ := set $values "POLICY" (.Files.Get "manifests/starter-policy.json") -}}
{{- $_ := set $values "LIMITER" (include "weir.fill" (list (.Files.Get "manifests/limiter.yaml") $values)) -}}

{{- if $isSidecar -}}
  {{- $timeout := min 500 (max 1 (div (mul $v.timeoutMs 4) 5)) -}}
  {{- $arguments := list "--listen" "0.0.0.0:6380" "--allow-remote" "--secret-file" "/run/weir/secret" "--timeout-ms" (toString $timeout) "--redis" $url -}}
  {{- $files := list (dict "secret" (dict "name" "weir-store" "items" (list (dict "key" "secret" "path" "secret")))) -}}
  {{- $environment := list -}}
  {{- if $v.redis.cluster }}{{ $arguments = append $arguments "--cluster" }}{{ end -}}
  {{- with $v.redis.passwordSecret -}}
    {{- $environment = append $environment (dict "name" "WEIR_REDIS_PASSWORD" "valueFrom" (dict "secretKeyRef" (dict "name" . "key" "password"))) -}}
  {{- end -}}
  {{- with $v.redis.caSecret -}}
    {{- $arguments = concat $arguments (list "--redis-ca" "/run/weir/ca.crt") -}}
    {{- $files = append $files (dict "secret" (dict "name" . "items" (list (dict "key" "ca.crt" "path" "ca.crt")))) -}}
  {{- end -}}
  {{- with $v.namespace }}{{ $arguments = concat $arguments (list "--namespace" .) }}{{ end -}}
  {{- $pullSecrets := list -}}
  {{- range $v.image.pullSecrets }}{{ $pullSecrets = append $pullSecrets (dict "name" .) }}{{ end -}}
  {{- $_ := set $values "SIDECAR_ARGUMENTS" (toJson $arguments) -}}
  {{- $_ := set $values "SIDECAR_ENVIRONMENT" (toJson $environment) -}}
  {{- $_ := set $values "SIDECAR_FILES" (toJson $files) -}}
  {{- $_ := set $values "SIDECAR_REPLICAS" (int $v.sidecar.replicas) -}}
  {{- $_ := set $values "SIDECAR_RESOURCES" (toJson $v.sidecar.resources) -}}
  {{- $_ := set $values "PULL_SECRETS" (toJson $pullSecrets) -}}
  {{- $_ := set $values "SIDECAR_HOST" $service -}}
  {{- $_ := set $values "SIDECAR_PORT" 6380 -}}
{{- end -}}

{{/* The bootstrap of Envoy Gateway's proxies, and of a bridge what stands in its cluster of Redis. */}}
{{- $bootstrap := regexFind "(?m)^stats_config:\n(?:[ -].*\n)*" (.Files.Get "manifests/envoy/gateway.yaml") -}}
{{- $provider := "" -}}
{{- if $isSidecar -}}
  {{- $bootstrap = printf "%s%s" $bootstrap (include "weir.fill" (list (.Files.Get "manifests/envoy/store-sidecar.yaml") $values)) -}}
{{- else -}}
  {{- $topology := .Files.Get (printf "manifests/envoy/redis-%s.yaml" $values.TOPOLOGY) -}}
  {{- if $v.redis.passwordSecret }}{{ $topology = printf "%s%s" $topology (.Files.Get "manifests/envoy/redis-auth.yaml") }}{{ end -}}
  {{- $rest := trimPrefix "redis://" $url -}}
  {{- $place := splitList "@" $rest | last | splitList "/" | first -}}
  {{- $_ := set $values "REDIS_HOST" (regexReplaceAll ":[0-9]+$" $place "" | trimPrefix "[" | trimSuffix "]") -}}
  {{- $_ := set $values "REDIS_PORT" (regexFind "[0-9]+$" $place) -}}
  {{- $_ := set $values "REDIS_CLUSTER" (include "weir.outdented" $topology) -}}
  {{- $_ := set $values "WASM" "/weir/plugin.wasm" -}}
  {{- $environment := "" -}}
  {{- if $v.redis.passwordSecret -}}
    {{- $user := contains "@" $rest | ternary (splitList "@" $rest | first) "" -}}
    {{- $password := dict "secretKeyRef" (dict "name" $v.redis.passwordSecret "key" "password") -}}
    {{- $environment = printf "env: %s" (toJson (list (dict "name" "REDIS_USERNAME" "value" $user) (dict "name" "REDIS_PASSWORD" "valueFrom" $password))) -}}
  {{- end -}}
  {{- $_ := set $values "GATEWAY_ENVIRONMENT" $environment -}}
  {{- $provider = include "weir.fill" (list (.Files.Get "manifests/envoy-gateway/provider-bridge.yaml") $values) -}}
  {{- $bridge := include "weir.fill" (list (.Files.Get "manifests/envoy/store-bridge.yaml") $values) -}}
  {{- $bootstrap = printf "%s%s%s" $bootstrap $bridge $topology -}}
{{- end -}}
{{- $_ := set $values "PROVIDER" $provider -}}
{{- $_ := set $values "BOOTSTRAP" $bootstrap -}}
{{- toYaml $values -}}
{{- end -}}
