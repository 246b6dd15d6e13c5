"""Task 3: diffusion."""

from .cells import answer, checked, given, question, setup, test, text
from .sources import blank_body, definition, standalone

CLASS = "genbook.diffusion.GaussianDiffusion"
CHECKS = "genbook.lab.checks.diffusion"
BLANKS = ("q_sample", "q_posterior_mean_variance", "p_sample")
FAST = ("ddim_sample", "ddim_timesteps", "ddim_sample_progressive", "ddim_sample_loop")


def cells(hidden):
    """The cells of the assignment. hidden: seeds of the hidden tests."""
    process = standalone(
        CLASS,
        "genbook.diffusion.cosine_beta_schedule",
        without=[f"{CLASS}.{name}" for name in (*BLANKS, *FAST)],
    )

    def blank(name):
        return answer(name, blank_body(definition(f"{CLASS}.{name}")))

    def tested(name):
        check, become_method = f"{CHECKS}.check_{name}", f"GaussianDiffusion.{name} = {name}"
        return checked(f"{name}-test", 4, check, "GaussianDiffusion", hidden, become_method)

    return [
        text("intro", """
# Task 3: diffusion

You write the three functions at the heart of a diffusion model, the way into noise, the posterior, and
a step back. Then you train it and draw digits.

Write only where it says `YOUR CODE HERE` or `YOUR ANSWER HERE`; you may add cells of your own.
Cells that begin with `def check():` are tests. Run one, and it shows the points, and says in words what is
wrong. An answer that is right in part gets a part of them, however it is written. Before you hand in, restart the kernel and run all cells from top to bottom.
"""),
        setup(),
        text("process-intro", r"""
## What is given

Images are `[N, C, H, W]` in $[-1, 1]$. A step `t` is `[N]`, one for each image, and counts from 0: at
`t = 0` an image has one step of noise. The class holds for each step the numbers that the formulas need,
as numpy arrays: `betas`, `alphas_cumprod` ($\bar\alpha_t$), `sqrt_alphas_cumprod`,
`sqrt_one_minus_alphas_cumprod`, `posterior_mean_coef1`, `posterior_mean_coef2`, `posterior_variance`,
and `posterior_log_variance_clipped`, where the entry at `t = 0` is that of `t = 1`. `extract(a, t)` takes
the entries `a[t]` as a tensor `[N, 1, 1, 1]`, ready to scale N images.
"""),
        given("process", process),
        text("forward", r"""
## Into noise

$$x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon, \qquad
\epsilon \sim \mathcal{N}(0, I) .$$

The three functions become methods of `GaussianDiffusion`, so `self` holds all that is given.
"""),
        blank("q_sample"),
        tested("q_sample"),
        text("posterior", r"""
## The posterior

If both $x_0$ and $x_t$ are known, $x_{t-1}$ is normal with

$$\tilde\mu_t = \frac{\sqrt{\bar\alpha_{t-1}}\, \beta_t}{1 - \bar\alpha_t}\, x_0
+ \frac{\sqrt{1 - \beta_t}\, (1 - \bar\alpha_{t-1})}{1 - \bar\alpha_t}\, x_t, \qquad
\tilde\beta_t = \frac{1 - \bar\alpha_{t-1}}{1 - \bar\alpha_t}\, \beta_t .$$

The first coefficient is `posterior_mean_coef1`, the second `posterior_mean_coef2`. Return the mean, the
variance and the logarithm of the variance, which must be finite at `t = 0`, too.
"""),
        blank("q_posterior_mean_variance"),
        tested("q_posterior_mean_variance"),
        text("reverse", r"""
## A step back

The network estimates the noise, and with it $x_0$. `self.p_mean_variance(model, x_t, t)` puts this estimate
into your posterior and gives `(mean, variance, log_variance, x_start)`. It knows what the network predicts, and
clips the estimate to $[-1, 1]$. A step back draws

$$x_{t-1} = \tilde\mu_t + \tilde\sigma_t \epsilon, \qquad \tilde\sigma_t^2 = \tilde\beta_t , \qquad
\epsilon \sim \mathcal{N}(0, I),$$

and at `t = 0` it gives the mean alone. Each image of a batch has its own `t`.
"""),
        blank("p_sample"),
        tested("p_sample"),
        *question("last-step", 3, r"""
Why does the last step, at `t = 0`, add no noise? And why does the reverse process add noise at all the other
steps, although it is on the way to a clean image?
""", r"""
At t = 0 the posterior has no variance: x_0 is known, so noise would only be left in the image. Before, the
posterior is a distribution: a step draws from it. Always taking the mean would lead to a blurred average, and
all randomness would have to come from the noise at the start.
"""),
        text("train-intro", """
## Train and sample

A small U-Net learns in about half a minute to tell noise from digit. The samples will be rough: good ones take
longer.
"""),
        given("unet", standalone("genbook.unet.UNet"), folded=True),
        given("train", """
images = 2 * load("digits").images - 1

paddle.seed(0)
diffusion = GaussianDiffusion(cosine_beta_schedule(100), prediction="v")
network = UNet(width=16)
history = fit(
    network, diffusion.training_loss, images, steps=600, batch_size=32, lr=2e-3
)
samples = diffusion.p_sample_loop(network, [100, 1, 16, 16])
image_rows({"real": (images[:10] + 1) / 2, "drawn": (samples[:10] + 1) / 2})
"""),
        test("samples", 3,
             [f"{CHECKS}.check_diffusion_samples", "genbook.lab.checks.compare.marks",
              "genbook.data.load"],
             'images = 2 * load("digits").images - 1',
             value="marks(3, check_diffusion_samples, samples, [images])"),
        *question("compare", 3, """
Compare these samples with those of the VAE of Task 2: what is better, what is worse, and what does a sample
cost?
""", """
The strokes are sharper, since each step commits to more detail, where the VAE's decoder gives one mean image.
Some samples are no digits after so short a training. A sample takes a hundred passes through the network,
with the VAE one.
"""),
    ]  # fmt: skip
