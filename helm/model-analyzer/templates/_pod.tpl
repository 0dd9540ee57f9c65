{{/* Labels and annotations of the pod template: nothing in it changes with the chart's version. */}}
{{- define "model-analyzer.podMetadata" -}}
{{- $labels := include "model-analyzer.stableLabels" . | fromYaml -}}
{{- $_ := set $labels "app.kubernetes.io/component" "analyzer" -}}
labels:
  {{- mustMerge $labels (deepCopy (.Values.podLabels | default dict)) (deepCopy (.Values.commonLabels | default dict)) | toYaml | nindent 2 }}
{{- with .Values.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What is fixed in a Job's spec beside the pod template. */}}
{{- define "model-analyzer.fixedJobSpec" -}}
{{- $sharded := gt (int .Values.shards) 1 -}}
{{- if $sharded }}
completionMode: Indexed
completions: {{ int .Values.shards }}
# Fixed, unlike backoffLimit.
backoffLimitPerIndex: {{ int .Values.backoffLimit }}
{{- end }}
# A pod that is being drained still writes to the claim: the next one starts when it is gone.
podReplacementPolicy: Failed
podFailurePolicy:
  rules:
    # Evicted, preempted, its node drained: no fault of the run. The next pod resumes.
    - action: Ignore
      onPodConditions:
        - type: DisruptionTarget
          status: "True"
    # Ended by SIGTERM or SIGINT, as a deleted pod is: everything measured is kept, the next pod resumes.
    - action: Ignore
      onExitCodes:
        containerName: analyzer
        operator: In
        values: [130, 143]
    # The job spec is wrong: it will be wrong in the next pod, too.
    - action: FailJob
      onExitCodes:
        containerName: analyzer
        operator: In
        values: [2]
    # Some phases failed (4), nothing satisfies the constraints (5), the claim is full or not writable (6).
    - action: {{ ternary "FailIndex" "FailJob" $sharded }}
      onExitCodes:
        containerName: analyzer
        operator: In
        values: [4, 5, 6]
{{- end }}

{{/* Where the server is: flags. */}}
{{- define "model-analyzer.serverArgs" -}}
{{- if .Values.triton.enabled }}
- --triton-http-endpoint
- localhost:{{ int .Values.triton.ports.http }}
- --triton-grpc-endpoint
- localhost:{{ int .Values.triton.ports.grpc }}
- --triton-metrics-url
- http://localhost:{{ int .Values.triton.ports.metrics }}/metrics
- --triton-server-identity
- {{ include "model-analyzer.tritonIdentity" . | quote }}
{{- if .Values.models.existingClaim }}
# Read here, too: the fingerprint of a model's files is part of its rows' identity.
- --model-repository
- {{ .Values.models.repository | quote }}
{{- end }}
{{- else }}
{{- with .Values.triton.endpoints.http }}
- --triton-http-endpoint
- {{ . | quote }}
{{- end }}
{{- with .Values.triton.endpoints.grpc }}
- --triton-grpc-endpoint
- {{ . | quote }}
{{- end }}
- --triton-metrics-url
- {{ .Values.triton.endpoints.metrics | quote }}
{{- with .Values.triton.identity }}
- --triton-server-identity
- {{ . | quote }}
{{- end }}
{{- if .Values.models.existingClaim }}
- --model-repository
- {{ .Values.models.repository | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* All flags of the run. hash: of the Job's name, empty while that is being made. */}}
{{- define "model-analyzer.runArgs" -}}
{{- $v := .root.Values -}}
- -f
- /etc/model-analyzer/job.yaml
- --triton-launch-mode
- remote
{{- include "model-analyzer.serverArgs" .root }}
- --export-path
- {{ printf "/results/%s" (include "model-analyzer.resultsDirectory" .root) | quote }}
# A pod that is being ended may hold the folder for its whole grace period.
- --export-path-wait-seconds
- {{ add (int $v.terminationGracePeriodSeconds) 60 | quote }}
- --dcgm-discovery
- {{ ternary "auto" "off" (eq (include "model-analyzer.discovery" .root) "true") | quote }}
{{- range $v.dcgm.namespaces }}
- --dcgm-exporter-namespaces
- {{ . | quote }}
{{- end }}
{{- range $v.dcgm.urls }}
- --dcgm-exporter-url
- {{ . | quote }}
{{- end }}
{{- /* A test has no index, and is no shard. */}}
{{- if and (gt (int $v.shards) 1) (not .test) }}
- --shards
- {{ int $v.shards | quote }}
{{- end }}
{{- if $v.annotateJob }}
- --annotate-job
- {{ printf "%s-%s" (include "model-analyzer.fullname" .root) .hash | quote }}
{{- end }}
{{- if $v.metrics.port }}
- --metrics-port
- {{ int $v.metrics.port | quote }}
{{- end }}
{{- with $v.logFormat }}
- --log-format
- {{ . | quote }}
{{- end }}
{{- range $v.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}

{{- define "model-analyzer.tritonArgs" -}}
{{- $t := .Values.triton -}}
- tritonserver
- {{ printf "--model-repository=%s" .Values.models.repository | quote }}
- --model-control-mode=explicit
- --http-port={{ int $t.ports.http }}
- --grpc-port={{ int $t.ports.grpc }}
- --metrics-port={{ int $t.ports.metrics }}
- --metrics-interval-ms={{ int $t.metricsIntervalMs }}
{{- if $t.logVerbose }}
- --log-verbose={{ int $t.logVerbose }}
{{- end }}
{{- range $t.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}

{{- define "model-analyzer.tritonIdentity" -}}
{{- $t := .Values.triton -}}
{{- if $t.identity -}}
{{- $t.identity -}}
{{- else -}}
{{- $settings := list (include "model-analyzer.tritonArgs" .) $t.env $t.envFrom $t.resources | toJson -}}
{{- printf "%s#%s" (include "model-analyzer.image" (list $t.image "")) (sha256sum $settings | trunc 8) -}}
{{- end -}}
{{- end }}

{{- define "model-analyzer.tritonContainer" -}}
{{- $v := .Values -}}
- name: triton
  # A native sidecar: started before the analyzer, restarted when it dies, ended after it.
  restartPolicy: Always
  image: {{ include "model-analyzer.image" (list $v.triton.image "") | quote }}
  imagePullPolicy: {{ $v.triton.image.pullPolicy }}
  args:
    {{- include "model-analyzer.tritonArgs" . | nindent 4 }}
  env:
    - name: HOME
      value: /tmp
    {{- with $v.triton.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- $secret := and $v.models.existingSecret (not $v.models.secretMountPath) }}
  {{- if or $v.triton.envFrom $secret }}
  envFrom:
    {{- if $secret }}
    - secretRef:
        name: {{ $v.models.existingSecret | quote }}
    {{- end }}
    {{- with $v.triton.envFrom }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  ports:
    - name: http
      containerPort: {{ int $v.triton.ports.http }}
    - name: grpc
      containerPort: {{ int $v.triton.ports.grpc }}
    - name: triton-metrics
      containerPort: {{ int $v.triton.ports.metrics }}
  startupProbe:
    {{- toYaml $v.triton.startupProbe | nindent 4 }}
  {{- with $v.triton.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.triton.securityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - name: triton-tmp
      mountPath: /tmp
    - name: shm
      mountPath: /dev/shm
    {{- with include "model-analyzer.modelsMount" . }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- if $v.models.secretMountPath }}
    - name: models-secret
      mountPath: {{ $v.models.secretMountPath | quote }}
      readOnly: true
    {{- end }}
    {{- with $v.triton.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{- define "model-analyzer.modelsMount" -}}
{{- with .Values.models -}}
{{- if .existingClaim -}}
- name: models
  mountPath: {{ .repository | quote }}
  {{- with .subPath }}
  subPath: {{ . | quote }}
  {{- end }}
  readOnly: true
{{- end -}}
{{- end -}}
{{- end }}

{{/* "true" where the analyzer is to see Triton's /dev/shm. */}}
{{- define "model-analyzer.sharesMemory" -}}
{{- if kindIs "bool" .Values.triton.shareMemory -}}
{{- .Values.triton.shareMemory -}}
{{- else -}}
{{- eq (toString (dig "shared_memory" "none" (.Values.job | default dict))) "system" -}}
{{- end -}}
{{- end }}

{{/* Affinity of the pod. A test goes to the node of the running Job, if it can: there its claim is, and its exporter. */}}
{{- define "model-analyzer.affinity" -}}
{{- $affinity := deepCopy (.root.Values.affinity | default dict) -}}
{{- if .test -}}
{{- $labels := include "model-analyzer.stableLabels" .root | fromYaml -}}
{{- $_ := set $labels "app.kubernetes.io/component" "analyzer" -}}
{{- $term := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" $labels) -}}
{{- $near := dict "podAffinity" (dict "preferredDuringSchedulingIgnoredDuringExecution" (list (dict "weight" 100 "podAffinityTerm" $term))) -}}
{{- $affinity = mustMerge $affinity $near -}}
{{- end -}}
{{- if $affinity -}}
{{- toYaml $affinity -}}
{{- end -}}
{{- end }}

{{/* The pod's spec. root: the chart's scope; hash: of the Job's name; test: the same pod, to be checked and not to measure. */}}
{{- define "model-analyzer.podSpec" -}}
{{- $v := .root.Values -}}
{{- $sidecar := and $v.triton.enabled (or (not .test) $v.tests.server) -}}
restartPolicy: Never
serviceAccountName: {{ include "model-analyzer.serviceAccountName" .root | quote }}
# Only the analyzer gets a token, and only where it uses the API: what models run in Triton is not to have one.
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ int $v.terminationGracePeriodSeconds }}
{{- with $v.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- with $v.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $v.schedulerName }}
schedulerName: {{ . | quote }}
{{- end }}
{{- with $v.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "model-analyzer.affinity" . }}
affinity:
  {{- . | nindent 2 }}
{{- end }}
{{- with $v.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if not .test }}
{{- if not (kindIs "invalid" $v.topologySpreadConstraints) }}
{{- with $v.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- else if gt (int $v.shards) 1 }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "model-analyzer.stableLabels" .root | nindent 8 }}
        app.kubernetes.io/component: analyzer
{{- end }}
{{- end }}
{{- with $v.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
{{- with $v.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if $sidecar }}
initContainers:
  {{- include "model-analyzer.tritonContainer" .root | nindent 2 }}
{{- end }}
containers:
  - name: analyzer
    image: {{ include "model-analyzer.image" (list $v.image .root.Chart.AppVersion) | quote }}
    imagePullPolicy: {{ $v.image.pullPolicy }}
    args:
      - {{ ternary "doctor" "profile" .test }}
      {{- if and .test $v.triton.enabled (not $v.tests.server) }}
      - --no-server
      {{- end }}
      {{- include "model-analyzer.runArgs" . | nindent 6 }}
    env:
      - name: NODE_NAME
        valueFrom:
          fieldRef:
            fieldPath: spec.nodeName
      - name: POD_NAME
        valueFrom:
          fieldRef:
            fieldPath: metadata.name
      - name: POD_NAMESPACE
        valueFrom:
          fieldRef:
            fieldPath: metadata.namespace
      {{- if $v.triton.enabled }}
      - name: TRITON_CONTAINER
        value: triton
      {{- end }}
      - name: TERMINATION_LOG
        value: /dev/termination-log
      - name: HOME
        value: /tmp
      {{- with $v.extraEnv }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- with $v.extraEnvFrom }}
    envFrom:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- if $v.metrics.port }}
    ports:
      - name: metrics
        containerPort: {{ int $v.metrics.port }}
    {{- end }}
    terminationMessagePolicy: FallbackToLogsOnError
    {{- with $v.resources }}
    resources:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $v.securityContext }}
    securityContext:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    volumeMounts:
      - name: job
        mountPath: /etc/model-analyzer
        readOnly: true
      - name: results
        mountPath: /results
      - name: tmp
        mountPath: /tmp
      {{- if and $sidecar (eq (include "model-analyzer.sharesMemory" .root) "true") }}
      # Triton's too: tensors lie there, and are not sent.
      - name: shm
        mountPath: /dev/shm
      {{- end }}
      {{- if include "model-analyzer.usesApi" .root }}
      - name: api-token
        mountPath: /var/run/secrets/kubernetes.io/serviceaccount
        readOnly: true
      {{- end }}
      {{- with include "model-analyzer.modelsMount" .root }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- with $v.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  - name: job
    configMap:
      name: {{ include "model-analyzer.fullname" .root }}-{{ .hash }}
  - name: results
    {{- if $v.results.emptyDir }}
    emptyDir: {}
    {{- else }}
    persistentVolumeClaim:
      claimName: {{ include "model-analyzer.resultsClaim" .root | quote }}
    {{- end }}
  - name: tmp
    emptyDir: {}
  {{- if include "model-analyzer.usesApi" .root }}
  # What automountServiceAccountToken would mount into every container.
  - name: api-token
    projected:
      sources:
        - serviceAccountToken:
            path: token
            expirationSeconds: 3607
        - configMap:
            name: kube-root-ca.crt
            items:
              - key: ca.crt
                path: ca.crt
        - downwardAPI:
            items:
              - path: namespace
                fieldRef:
                  fieldPath: metadata.namespace
  {{- end }}
  {{- if $v.models.existingClaim }}
  - name: models
    persistentVolumeClaim:
      claimName: {{ $v.models.existingClaim | quote }}
      # Nothing in it is changed, its owner (fsGroup) neither.
      readOnly: true
  {{- end }}
  {{- if $sidecar }}
  - name: triton-tmp
    {{- if kindIs "invalid" $v.triton.tmpSize }}
    emptyDir: {}
    {{- else }}
    emptyDir:
      sizeLimit: {{ $v.triton.tmpSize }}
    {{- end }}
  - name: shm
    emptyDir:
      medium: Memory
      sizeLimit: {{ $v.triton.shmSize }}
  {{- if $v.models.secretMountPath }}
  - name: models-secret
    secret:
      secretName: {{ $v.models.existingSecret | quote }}
  {{- end }}
  {{- end }}
  {{- with $v.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
