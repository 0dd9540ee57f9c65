{{/*
Names. The Job is <fullname>-<hash8>, and the host name of an Indexed Job's pod is <job>-<index>; all of it has to fit
in 63 characters, without dots. So a fullname has at most 46, and one that is cut or loses dots keeps a hash of the
whole: two long releases that differ at their end only do not meet, nor do `a.b` and `a-b`.
*/}}
{{- define "model-analyzer.fullname" -}}
{{- $full := .Values.fullnameOverride -}}
{{- if not $full -}}
{{- $full = ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- end -}}
{{- if or (gt (len $full) 46) (contains "." $full) -}}
{{- printf "%s-%s" ($full | replace "." "-" | trunc 37 | trimSuffix "-") (sha256sum $full | trunc 8) -}}
{{- else -}}
{{- $full -}}
{{- end -}}
{{- end }}

{{- define "model-analyzer.jobName" -}}
{{- printf "%s-%s" (include "model-analyzer.fullname" .) (include "model-analyzer.hash" .) -}}
{{- end }}

{{- define "model-analyzer.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "model-analyzer.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end }}

{{/* The name of a cluster-wide object: no other release in any namespace can have it. */}}
{{- define "model-analyzer.clusterName" -}}
{{- printf "model-analyzer:%s:%s" .Release.Namespace (include "model-analyzer.fullname" .) -}}
{{- end }}

{{- define "model-analyzer.resultsClaim" -}}
{{- .Values.results.existingClaim | default (printf "%s-results" (include "model-analyzer.fullname" .)) -}}
{{- end }}

{{- define "model-analyzer.resultsDirectory" -}}
{{- .Values.results.directory | default .Release.Name -}}
{{- end }}

{{/* Labels that stay the same as long as the release lives: those of pods, so that an upgrade of the chart alone changes no Job. */}}
{{- define "model-analyzer.stableLabels" -}}
app.kubernetes.io/name: model-analyzer
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "model-analyzer.labels" -}}
{{- $own := include "model-analyzer.stableLabels" . | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/component" "analyzer" -}}
{{- $_ := set $own "app.kubernetes.io/version" (.Chart.AppVersion | toString) -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .Release.Service -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63) -}}
{{- mustMerge $own (deepCopy (.Values.commonLabels | default dict)) | toYaml -}}
{{- end }}

{{- define "model-analyzer.rbacMetadata" -}}
labels:
  {{- include "model-analyzer.labels" . | nindent 2 }}
{{- with .Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "model-analyzer.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default (index . 1)) -}}
{{- end -}}
{{- end }}

{{/* YAML's bare off is false. */}}
{{- define "model-analyzer.discovery" -}}
{{- if eq (toString .Values.dcgm.discovery) "auto" -}}true{{- end -}}
{{- end }}

{{/* Whether the pod talks to the API server. */}}
{{- define "model-analyzer.usesApi" -}}
{{- if or (include "model-analyzer.discovery" .) .Values.annotateJob -}}true{{- end -}}
{{- end }}

{{/* The job file. */}}
{{- define "model-analyzer.jobFile" -}}
{{- if .Values.jobFile -}}
{{- .Values.jobFile -}}
{{- else -}}
{{- .Values.job | default (dict "profile_models" (list "add_sub")) | toYaml -}}
{{- end -}}
{{- end }}

{{/*
What a Job cannot change in its life is in its name: the job file and the files beside it, the pod template, how it is
spread and what its exit codes mean. (suspend, parallelism, the two times, and without shards backoffLimit can be changed
under a running Job.)
*/}}
{{- define "model-analyzer.hash" -}}
{{- $named := dict "root" . "hash" "" "test" false -}}
{{- $parts := list
  (include "model-analyzer.jobFile" .)
  (include "model-analyzer.podMetadata" .)
  (include "model-analyzer.podSpec" $named)
  (include "model-analyzer.fixedJobSpec" .)
-}}
{{- /* Without files a Job keeps the name that it had before there were any. */ -}}
{{- with .Values.files -}}
{{- $parts = append $parts (toJson .) -}}
{{- end -}}
{{- $parts | join "\n---\n" | sha256sum | trunc 8 -}}
{{- end }}

{{/*
Wrong values: one line each, "where: what; how to mend".
*/}}
{{- define "model-analyzer.checkValues" -}}
{{- $v := .Values -}}
{{- $job := include "model-analyzer.jobFile" . | fromYaml -}}
{{- if hasKey $job "Error" -}}
{{- fail (printf "jobFile: is no YAML mapping (%s); give a job file as for the command line" ($job.Error | replace "\n" " ")) -}}
{{- end -}}
{{- if and $v.job $v.jobFile -}}
{{- fail "jobFile: job is given, too; leave out one of them" -}}
{{- end -}}
{{- if hasKey ($v.files | default dict) "job.yaml" -}}
{{- fail "files: names job.yaml, which is the job file itself; give it another name" -}}
{{- end -}}
{{- if and (hasKey $job "shards") (ne (toString $job.shards) (toString (int $v.shards))) -}}
{{- fail (printf "job.shards: is %v, and the Job has %v; set the value shards instead, which makes the pods" $job.shards (int $v.shards)) -}}
{{- end -}}
{{- if hasKey $job "shard_index" -}}
{{- fail "job.shard_index: is given for all pods; leave it out, each pod gets its own" -}}
{{- end -}}
{{- if and $v.triton.enabled (not $v.triton.image.tag) (not $v.triton.image.digest) -}}
{{- fail "triton.image.tag: is empty, as is triton.image.digest; name one of them" -}}
{{- end -}}
{{- if not $v.triton.enabled -}}
{{- if not (or $v.triton.endpoints.http $v.triton.endpoints.grpc) -}}
{{- fail "triton.endpoints: is empty, and triton.enabled is false; name the server's grpc and metrics endpoints, or enable the sidecar" -}}
{{- end -}}
{{- $protocol := get $job "client_protocol" | default "grpc" -}}
{{- if not (get $v.triton.endpoints $protocol) -}}
{{- fail (printf "triton.endpoints.%s: is empty, and the job's client_protocol is %s; name it as host:port, or choose the other protocol" $protocol $protocol) -}}
{{- end -}}
{{- if not $v.triton.endpoints.metrics -}}
{{- fail "triton.endpoints.metrics: is empty; name the URL of the server's metrics page, http://HOST:8002/metrics" -}}
{{- end -}}
{{- else -}}
{{- if or $v.triton.endpoints.http $v.triton.endpoints.grpc $v.triton.endpoints.metrics -}}
{{- fail "triton.endpoints: is given, and triton.enabled is true; set triton.enabled=false to measure that server" -}}
{{- end -}}
{{- end -}}
{{- if and $v.models.existingClaim (contains "://" $v.models.repository) -}}
{{- fail (printf "models.existingClaim: is given, and models.repository is %s; make the one empty or the other a path" $v.models.repository) -}}
{{- end -}}
{{- if and $v.models.subPath (not $v.models.existingClaim) -}}
{{- fail "models.subPath: is given without models.existingClaim; name the claim, or put the path into models.repository" -}}
{{- end -}}
{{- if and $v.models.secretMountPath (not $v.models.existingSecret) -}}
{{- fail "models.secretMountPath: is given without models.existingSecret; name the secret" -}}
{{- end -}}
{{- if and $v.results.emptyDir $v.results.existingClaim -}}
{{- fail "results.emptyDir: is true, and results.existingClaim is given; choose one" -}}
{{- end -}}
{{- $port := int $v.metrics.port -}}
{{- if and $port $v.triton.enabled (has $port (list (int $v.triton.ports.http) (int $v.triton.ports.grpc) (int $v.triton.ports.metrics))) -}}
{{- fail (printf "metrics.port: is %d, as is one of triton.ports, and the two share the pod's network; choose another, such as 9100" $port) -}}
{{- end -}}
{{- if and (include "model-analyzer.usesApi" .) $v.rbac.create (not $v.serviceAccount.create) (not $v.serviceAccount.name) -}}
{{- fail "serviceAccount.name: is empty, and serviceAccount.create is false; name an account: the right to read pods or the Job would go to every pod of the namespace that has none of its own" -}}
{{- end -}}
{{- if and $v.dcgm.namespaces (not (include "model-analyzer.discovery" .)) -}}
{{- fail "dcgm.namespaces: is given, and dcgm.discovery is off; set dcgm.discovery=auto" -}}
{{- end -}}
{{- end }}
