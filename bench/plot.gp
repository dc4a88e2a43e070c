# SPDX-License-Identifier: Apache-2.0
#
# The pictures of bench/plot.sh: gnuplot -c plot.gp VALUES PICTURES DEVICE

values = ARG1
pictures = ARG2
device = ARG3

set datafile separator "\t"
set datafile missing "?"
set style data histograms
set style histogram clustered gap 1
set style fill solid noborder
set boxwidth 0.9 relative
set border 3
set tics nomirror
set grid ytics lt 1 lw 1 lc rgb "#dddddd"
set key outside top center horizontal noenhanced
# colours that everybody can tell apart
set linetype 1 lc rgb "#0072b2" lw 2 pt 7
set linetype 2 lc rgb "#d55e00" lw 2 pt 5
set linetype 3 lc rgb "#009e73" lw 2 pt 9
set linetype 4 lc rgb "#e69f00" lw 2 pt 13

file(name) = values . "/" . name
columns(name) = int(system("head -n 1 '" . file(name) . "' | awk -F'\t' '{ print NF }'"))
rows(name) = int(system("wc -l <'" . file(name) . "'")) - 1
picture(name) = pictures . "/" . name . ".svg"
svg(height) = sprintf("set terminal svg size 900,%d noenhanced font 'sans-serif,13' background rgb 'white'", height)

eval svg(460)
set output picture("pair")
set xrange [-0.6:rows("pair") - 0.4]
set title "Allocate and free 2 MiB, one thread (" . device . ")"
set ylabel "ns a pair, log scale"
set logscale y
set yrange [10:*]
plot for [i = 2:columns("pair")] file("pair") using i:xtic(1) title columnheader(i)

set output picture("threads")
set title "Allocate and free 2 MiB, a stream for each thread (" . device . ")"
set xlabel "threads"
set ylabel "million pairs a second in all, log scale"
set xrange [*:*]
set logscale x 2
set yrange [*:*]
plot for [i = 2:columns("threads")] file("threads") using 1:i with linespoints title columnheader(i)
unset logscale x
unset xlabel

set output picture("random")
set xrange [-0.6:rows("random") - 0.4]
set title "Free a random block and allocate another (" . device . ")"
set ylabel "ns a pair, log scale"
set yrange [10:*]
plot for [i = 2:columns("random")] file("random") using i:xtic(1) title columnheader(i)
unset logscale y

set output picture("growth")
set xrange [-0.6:rows("growth") - 0.4]
set title "From nothing to 40 GiB (" . device . ")"
set ylabel "ms"
set yrange [0:*]
unset key
plot file("growth") using 2:xtic(1) lt 1 title columnheader(2), "" using 0:2:(sprintf("%.1f", $2)) with labels offset 0,0.7 title columnheader(2)
set key

set output picture("sleep")
set xrange [-0.6:rows("sleep") - 0.4]
set title "Sleep and wake of 40 GiB in 300 blocks, and the limit of each (" . device . ")"
set ylabel "ms, log scale"
set logscale y
set yrange [10:*]
set xtics rotate by -20 left
set rmargin 12
plot for [i = 2:columns("sleep")] file("sleep") using i:xtic(1) title columnheader(i)
unset logscale y

eval svg(640)
set xtics rotate by -40 left
set rmargin 16
set yrange [1:*]
do for [kind in "expandable discrete"] {
  name = "traces-" . kind
  set output picture(name)
  set xrange [-0.6:rows(name) - 0.4]
  set title "Traces: peak mapped over peak live, " . kind . " segments (" . device . ")"
  set ylabel "1 is perfect"
  plot for [i = 2:columns(name)] file(name) using i:xtic(1) title columnheader(i)
}
