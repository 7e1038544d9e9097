# Joins the figures of both sides by shape: tasks a CPU second, the median of what was measured, and ours by theirs.

function median(key,    n, i, j, t, a) {
	n = count[key]
	for (i = 1; i <= n; i++) a[i] = value[key, i]
	for (i = 1; i <= n; i++) for (j = i + 1; j <= n; j++) if (a[j] < a[i]) { t = a[i]; a[i] = a[j]; a[j] = t }
	low[key] = a[1]; high[key] = a[n]
	return a[int((n + 1) / 2)]
}

function ratio(ours, theirs) { return theirs > 0 && ours > 0 ? sprintf("%.1f", ours / theirs) : "-" }

function of(key) { return count[key] ? sprintf("%d", median(key)) : "-" }

$1 ~ /^(SwarmKit|shoal)\// {
	split($1, part, "/")
	key = part[1] "/" part[2]
	shape = substr($1, length(key) + 2)
	for (i = 3; i < NF; i += 1) if ($(i + 1) == "tasks/cpu-s") {
		value[key SUBSEP shape, ++count[key SUBSEP shape]] = $i
		if (!(shape in seen)) { seen[shape] = 1; order[++shapes] = shape }
	}
}

END {
	print "tasks a CPU second, medians; the spread of Fill and of SwarmKit in brackets"
	format = "%-42s %8s %17s %8s  %8s %17s %6s  %8s %6s  %8s %6s\n"
	printf format, "shape", "SwarmKit", "", "store", "Fill", "", "ratio", "Place", "ratio", "+Apply", "ratio"
	for (n = 1; n <= shapes; n++) {
		s = order[n]
		all = of("SwarmKit/all" SUBSEP s); store = of("SwarmKit/store" SUBSEP s)
		fill = of("shoal/Fill" SUBSEP s); place = of("shoal/Place" SUBSEP s); applied = of("shoal/PlaceAndApply" SUBSEP s)
		# The scheduler without its store: the time for a task less that of the store.
		alone = (all > 0 && store > 0 && 1 / all > 1 / store) ? 1 / (1 / all - 1 / store) : all
		printf format, s, all, "[" low["SwarmKit/all" SUBSEP s] "-" high["SwarmKit/all" SUBSEP s] "]", store,
			fill, "[" low["shoal/Fill" SUBSEP s] "-" high["shoal/Fill" SUBSEP s] "]", ratio(fill, all),
			place, ratio(place, alone), applied, ratio(applied, all)
	}
}
